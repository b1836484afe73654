"""Published ways to break InstaHide, as programs: an observation in, a reconstruction out."""

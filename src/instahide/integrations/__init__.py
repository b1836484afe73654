"""InstaHide in other people's training pipelines."""

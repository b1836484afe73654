"""Instance encoders: their interface, their registry, and encoders besides InstaHide."""

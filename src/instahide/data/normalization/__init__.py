"""The normalization of images, and checks that their values agree with it."""

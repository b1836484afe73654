"""InstaHide itself: schemes, one-time keys, kernels, encoders, exposure counts and privacy."""

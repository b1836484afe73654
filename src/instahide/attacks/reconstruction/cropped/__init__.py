"""Which encodings hold which image, and where, if images were cropped at random before mixing."""

"""Public images: photographs, their crops, and pools of patches."""

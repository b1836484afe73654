"""How images are normalized, and checks that their values agree with it."""

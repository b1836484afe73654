"""Runs attacks on encodings whose truth it knows, and says what they recovered at what cost."""

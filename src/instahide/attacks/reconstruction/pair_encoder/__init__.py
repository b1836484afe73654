"""Features and a network that detect encodings with a common private image."""

"""General helpers that do not depend on images or encryption."""

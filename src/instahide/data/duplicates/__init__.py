"""Detection of rows that show the same image, by content."""

"""Images at URLs, through fsspec."""

"""The audit's report, as JSON and as a page."""

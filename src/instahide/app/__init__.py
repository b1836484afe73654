"""A page to look at: what encryption does, what quick attacks make of it, reports of audits."""

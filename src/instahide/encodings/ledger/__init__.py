"""The ledger: how many encodings each private image went into, over all runs."""

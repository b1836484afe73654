"""The ledger: how many encodings each private image went into, over all runs."""

from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger, default_ledger

__all__ = ["Ledger", "LedgerAccount", "default_ledger"]

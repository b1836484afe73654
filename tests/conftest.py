"""Small networks are slower on many threads, and much slower on a busy machine: use one."""

from __future__ import annotations

import os

# Before PyTorch is imported, and for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

"""The processes of a distributed run."""

from __future__ import annotations

import os

import torch.distributed as dist


def joint_processes() -> int:
    """How many processes train together, also before they have met."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    launched = os.environ.get("WORLD_SIZE", "")
    return int(launched) if launched.isdecimal() else 1

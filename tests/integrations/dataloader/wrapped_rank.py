"""A process under `torchrun`, seeded like all others: prints the masks of its encodings as JSON."""

from __future__ import annotations

import json

import torch
import torch.distributed as dist

from instahide import encode_loader
from tests.integrations.dataloader.wrapped_loaders import ALONE, loader, masks

if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    # In one write, so that the lines of two processes do not mix.
    print(json.dumps(masks(encode_loader(loader(shuffle=True), ALONE)).tolist()) + "\n", end="")
    dist.destroy_process_group()

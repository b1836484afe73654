"""Lightning Fabric, set up for this project: device, precision and process group.

Fabric's own checkpoints and its broadcast of objects are not used, because both are pickle.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

#: Timeout of a collective; other processes may have far more images to read. The death of a process
#: is noticed at once.
TIMEOUT = timedelta(days=1)
#: Fabric's names for the types that `device.pick_precision` returns.
_PRECISIONS: dict[torch.dtype, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    torch.float32: "32-true",
    torch.bfloat16: "bf16-mixed",
    torch.float16: "16-mixed",
}

# Fabric installs a handler that prints a banner at level INFO.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


class _LauncherEnvironment(TorchElasticEnvironment):
    """The processes of any launcher that sets the variables in `processes.LAUNCHED`."""

    def local_rank(self) -> int:
        return int(os.environ.get("LOCAL_RANK", 0))

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accept all: the launcher decides how many processes there are."""


class _OwnBuffers(DDPStrategy):
    """Each process keeps its own buffers; rank 0's would describe only its own images."""

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        replica = super().setup_module(module)
        # Set afterwards: the argument of this name is deprecated and also concerns the start.
        replica.broadcast_buffers = False
        return replica


def make_fabric(
    device: torch.device,
    precision: torch.dtype,
    *,
    distributed: bool = False,
    unused_parameters: bool = False,
) -> Fabric:
    """A launched `Fabric` that computes on ``device`` in ``precision``.

    Args:
        device: cpu, cuda or mps. If distributed, each process takes the GPU of its local rank.
        precision: float32; or bfloat16 or float16 by automatic mixed precision.
        distributed: join the processes that a launcher started, and average gradients with
            `DistributedDataParallel`; CPU tensors are exchanged through gloo, CUDA tensors through
            nccl.
        unused_parameters: the network may have parameters that its outputs do not depend on.
    """
    if distributed:
        environment = _LauncherEnvironment()
        count = environment.local_rank() + 1
        fabric = Fabric(
            accelerator=device.type,
            devices=count if device.type == "cpu" else list(range(count)),
            strategy=_OwnBuffers(
                cluster_environment=environment,
                process_group_backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                timeout=TIMEOUT,
                gradient_as_bucket_view=True,
                find_unused_parameters=unused_parameters,
            ),
            precision=_PRECISIONS[precision],
        )
    else:
        fabric = Fabric(
            accelerator=device.type,
            devices=[device.index] if device.type == "cuda" and ":" in str(device) else 1,
            precision=_PRECISIONS[precision],
            plugins=[LightningEnvironment()],
        )
    fabric.launch()
    return fabric

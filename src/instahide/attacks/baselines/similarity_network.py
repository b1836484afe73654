"""The comparison of encodings by Carlini et al., as a baseline: a large network for pairs.

Carlini et al., "Is Private Learning Possible with Instance Encoding?" (arXiv:2011.05315, section
4.1). The input of a wide residual network is the stacked absolute values of two encodings, and its
output is whether they share a private image. It is trained on encodings of the attacker's own
images. It is a cross-encoder: n encodings need n^2 forward passes, which they report to take about
an hour on one GPU for 5,000 encodings. The bi-encoder of `pair_encoder` needs n.

Size and blocks are those of their released code: depth 28 and widening 6. There are four
differences. There is one logit instead of two. The inputs have the same scale, that of
`magnitudes`. The logits of both orders of a pair are averaged, at the same cost, because their code
evaluates every pair in both orders. Their code has no training and predicts with a moving average
of the weights; here AdamW's learning rate decays to 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.base import Progress, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.network_file import load_network, save_network
from instahide.attacks.reconstruction.pair_encoder.training_loop import LearningRate, train_steps
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: The published size.
DEPTH, WIDENING = 28, 6
#: Number of stages, each after the first at half the resolution of the one before; channels of the
#: first stage before widening.
STAGES, WIDTH = 3, 16
#: Pairs per training step; half of them share an image, compared with one in twelve random pairs.
PAIRS = 256
#: Learning rate, and a weight decay equivalent to that of Zagoruyko and Komodakis.
RATE, DECAY = LearningRate(1e-3, warm_up=100), 0.05
#: Number of pairs per forward pass.
BATCH = 250


class SimilarityNetwork(nn.Module):
    """The log-odds that two encodings share an image, for a prior probability of one half.

    It is a wide residual network with normalization before each convolution (Zagoruyko and
    Komodakis, "Wide Residual Networks", 2016), with 13 million parameters at the published size. It
    computes in bfloat16 on a CUDA device.

    Args:
        channels: number of channels of the encodings, 1 or 3.
        depth: number of convolutions, including those of shortcuts: 10, 16, 22, 28, ...
        widening: number of channels relative to a plain residual network.

    Raises:
        InstaHideError: ``depth`` or ``widening`` is not valid.
    """

    def __init__(self, channels: int, depth: int = DEPTH, widening: int = WIDENING) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 2 * STAGES)
        if blocks < 1 or rest or widening < 1:
            raise InstaHideError(
                f"There is no wide residual network of depth {depth} and widening {widening}.",
                "Use a depth of 10, 16, 22, 28, ... and a widening of 1 or more.",
            )
        widths = [WIDTH, *(WIDTH * widening << stage for stage in range(STAGES))]
        self.stem = nn.Conv2d(2 * channels, WIDTH, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *(
                WideBlock(outputs if number else inputs, outputs, 1 if number or not stage else 2)
                for stage, (inputs, outputs) in enumerate(pairwise(widths))
                for number in range(blocks)
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        # This memory layout is faster on GPUs and CPUs.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(n,) logits of pairs of `magnitudes`, each (n, C, H, W), averaged over both orders."""
        both = self.ordered(torch.cat([first, second]), torch.cat([second, first]))
        return both.reshape(2, len(first)).mean(dim=0)

    def ordered(self, first: Tensor, second: Tensor) -> Tensor:
        """(n,) logits like `forward`, for one order only."""
        with torch.autocast(first.device.type, torch.bfloat16, enabled=first.is_cuda):
            features = self.blocks(self.stem(torch.cat([first, second], dim=1)))
            logits: Tensor = self.head(F.relu(self.norm(features)).mean(dim=(2, 3)))
        return logits[:, 0].float()


class WideBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, each after normalization and ReLU.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        stride: stride of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        alike = inputs == outputs and stride == 1
        self.shortcut = None if alike else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, H, W) -> (n, outputs, H / stride, W / stride), rounded up."""
        activated = F.relu(self.norm1(x))
        y: Tensor = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return y + (x if self.shortcut is None else self.shortcut(activated))


def train_similarity(
    shadow: ImageTable,
    scheme: Scheme,
    budget: Budget,
    progress: Progress = no_progress,
    *,
    network: SimilarityNetwork | None = None,
    device: torch.device | str = "cpu",
) -> SimilarityNetwork:
    """Train until ``budget`` ends; the learning rate decays to 0.

    Args:
        shadow: thousands of images like the private ones, none of them private.
        scheme: scheme of the encodings.
        budget: time limit.
        progress: receives the mean loss.
        network: network to continue with; a new one of the published size by default.
        device: device to train on.
    """
    model = (SimilarityNetwork(shadow.shape[0]) if network is None else network).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=DECAY)

    def losses() -> Iterator[Tensor]:
        for batch in shadow_batches(shadow, scheme):
            sizes = magnitudes(batch.encodings.to(device))
            first, second, shares = (part.to(device) for part in _pairs(batch.shares))
            logits = model.ordered(sizes[first], sizes[second])
            yield F.binary_cross_entropy_with_logits(logits, shares)

    train_steps(optimiser, losses(), budget, progress, RATE)
    return model.eval()


@torch.no_grad()
def similarities(
    network: SimilarityNetwork,
    encodings: Tensor,
    pairs: Tensor,
    *,
    progress: Progress = no_progress,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(p,) float32 logits of some pairs, on the CPU.

    Args:
        network: trained network; it is set to evaluation mode and moved to ``device``.
        encodings: (n, C, H, W) all encodings.
        pairs: (2, p) indices of the encodings to compare.
        progress: receives the progress.
        device: device to compute on.
    """
    network.to(device).eval()
    sizes, parts = magnitudes(encodings.to(device)), torch.split(pairs.to(device), BATCH, dim=1)
    found = []
    for number, (first, second) in enumerate(parts, 1):
        found.append(network(sizes[first], sizes[second]).cpu())
        progress("comparing pairs", number / len(parts))
    return torch.cat(found)


def all_similarities(
    network: SimilarityNetwork,
    encodings: Tensor,
    *,
    progress: Progress = no_progress,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(n, n) float32 logits of all pairs of encodings, on the CPU; each pair is compared once.

    An encoding is not compared with itself: the diagonal is the largest logit, and at least 0.

    Args:
        network: trained network; it is set to evaluation mode and moved to ``device``.
        encodings: (n, C, H, W) encodings.
        progress: receives the progress.
        device: device to compute on.
    """
    first, second = pairs = torch.triu_indices(len(encodings), len(encodings), 1)
    likeness = torch.zeros(len(encodings), len(encodings))
    found = similarities(network, encodings, pairs, progress=progress, device=device)
    likeness[first, second] = likeness[second, first] = found
    return likeness.fill_diagonal_(float(likeness.max()))


def save_similarity(path: Path, network: SimilarityNetwork) -> None:
    """Write the weights to ``path``, a safetensors file."""
    save_network(path, network)


def load_similarity(path: Path) -> SimilarityNetwork:
    """Read a network that `save_similarity` wrote.

    Raises:
        InstaHideError: the file is missing or damaged, or does not contain a similarity network.
    """
    remedy = "Train one with `python -m experiments.train_similarity`."
    return load_network(path, _matching_network, "a similarity network", remedy)


def _matching_network(tensors: Mapping[str, Tensor]) -> SimilarityNetwork:
    """A network of the size that fits the named ``tensors``."""
    blocks = sum(name.endswith("conv1.weight") for name in tensors)
    return SimilarityNetwork(
        tensors["stem.weight"].shape[1] // 2,
        4 + 2 * blocks,
        tensors["head.weight"].shape[1] // (WIDTH << STAGES - 1),
    )


def _pairs(shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(PAIRS,) random first and second encodings; 1 if they share an image, otherwise 0."""
    itself = torch.eye(len(shares), dtype=torch.bool)
    chosen = [
        kind[torch.randint(len(kind), (PAIRS // 2,))]
        for kind in ((shares & ~itself).nonzero(), (~shares).nonzero())
    ]
    first, second = torch.cat(chosen).T
    return first, second, (torch.arange(PAIRS) < PAIRS // 2).float()

"""The published comparison of encodings, to set ours beside: a large network that sees both.

Carlini et al., "Is Private Learning Possible with Instance Encoding?" (arXiv:2011.05315, section
4.1). Two encodings go through a wide residual network together, their absolute values stacked, and
it says whether they share a private image. It has learnt that from encodings of the attacker's own
images. It is a cross-encoder: n encodings are n^2 passes through it, by their account an hour or so
on one GPU for 5,000 of them, where the bi-encoder of `pair_encoder` takes n.

Size and blocks are those of their released code: depth 28 and widening 6. Different here: there is
one logit, not two; the inputs are of one scale, that of `magnitudes`; and the logits of both orders
of a pair are averaged, at the cost of theirs, which takes every pair in both. Their code holds no
training, and predicts with a moving average of the weights; here AdamW's rate falls to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.base import Budget, Progress, no_progress
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.network_file import load_network, save_network
from instahide.attacks.reconstruction.pair_encoder.training_loop import LearningRate, train_steps
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: The published size.
DEPTH, WIDENING = 28, 6
#: Stages, each but the first at half the resolution, and channels of the first before widening.
STAGES, WIDTH = 3, 16
#: Pairs in a step of training: half of them share an image, where by chance one in twelve does.
PAIRS = 256
#: The learning rate, and the decay that comes to that of Zagoruyko and Komodakis.
RATE, DECAY = LearningRate(1e-3, warm_up=100), 0.05
#: Pairs that are compared at a time.
BATCH = 250


class SimilarityNetwork(nn.Module):
    """From two encodings to the log-odds that they share an image, were it so for half of all.

    A wide residual network with normalization before each convolution (Zagoruyko and Komodakis,
    "Wide Residual Networks", 2016), of 13 million parameters at the published size. It computes in
    bfloat16 on a CUDA device.

    Args:
        channels: of the encodings, 1 or 3.
        depth: convolutions, those of shortcuts among them: 10, 16, 22, 28, ...
        widening: how many times as many channels as a plain residual network has.

    Raises:
        InstaHideError: there is no network of that size.
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
        # The layout that GPUs, and processors too, are faster in.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(n,) logits of pairs of `magnitudes`, each (n, C, H, W); the mean of both orders."""
        both = self.ordered(torch.cat([first, second]), torch.cat([second, first]))
        return both.reshape(2, len(first)).mean(dim=0)

    def ordered(self, first: Tensor, second: Tensor) -> Tensor:
        """(n,) logits as `forward` gives them, of one order alone."""
        with torch.autocast(first.device.type, torch.bfloat16, enabled=first.is_cuda):
            seen = self.blocks(self.stem(torch.cat([first, second], dim=1)))
            logits: Tensor = self.head(F.relu(self.norm(seen)).mean(dim=(2, 3)))
        return logits[:, 0].float()


class WideBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, each after normalization and ReLU.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution.
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
        seen = F.relu(self.norm1(x))
        y: Tensor = self.conv2(F.relu(self.norm2(self.conv1(seen))))
        return y + (x if self.shortcut is None else self.shortcut(seen))


def train_similarity(
    shadow: ImageTable,
    scheme: Scheme,
    budget: Budget,
    progress: Progress = no_progress,
    *,
    network: SimilarityNetwork | None = None,
    device: torch.device | str = "cpu",
) -> SimilarityNetwork:
    """Train until ``budget`` ends; the learning rate falls to 0 by then.

    Args:
        shadow: images of the private ones' kind, thousands of them, none of them private.
        scheme: that the encodings were made with.
        budget: of seconds.
        progress: told the mean loss.
        network: to go on with; a new one of the published size by default.
        device: to train on.
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
        network: trained; it is put in eval mode and moved to ``device``.
        encodings: (n, C, H, W), all of them.
        pairs: (2, p) which of them to compare.
        progress: told of it.
        device: to compare on.
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

    An encoding is not compared with itself: the diagonal holds the largest logit of all, or 0 if
    that is more.

    Args:
        network: trained; it is put in eval mode and moved to ``device``.
        encodings: (n, C, H, W).
        progress: told of it.
        device: to compare on.
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
    """Read what `save_similarity` wrote.

    Raises:
        InstaHideError: the file is missing, damaged, or holds something else.
    """
    remedy = "Train one with `python -m experiments.train_similarity`."
    return load_network(path, _of_the_size, "a similarity network", remedy)


def _of_the_size(tensors: Mapping[str, Tensor]) -> SimilarityNetwork:
    """A network that ``tensors``, by name, are the weights of."""
    blocks = sum(name.endswith("conv1.weight") for name in tensors)
    return SimilarityNetwork(
        tensors["stem.weight"].shape[1] // 2,
        4 + 2 * blocks,
        tensors["head.weight"].shape[1] // (WIDTH << STAGES - 1),
    )


def _pairs(shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(PAIRS,) encodings, those beside them in no order, and 1 where they share an image, or 0."""
    itself = torch.eye(len(shares), dtype=torch.bool)
    chosen = [
        kind[torch.randint(len(kind), (PAIRS // 2,))]
        for kind in ((shares & ~itself).nonzero(), (~shares).nonzero())
    ]
    first, second = torch.cat(chosen).T
    return first, second, (torch.arange(PAIRS) < PAIRS // 2).float()

"""Small networks for encodings on which convolutions make no sense: `model=` of a training run.

encoder_networks:patches   for vectors of patches in any order (NeuraCrypt)
encoder_networks:dense     for pixels under a fixed permutation (block scrambling)
"""

from __future__ import annotations

import math

from torch import Tensor, nn

WIDTH, HEADS, LAYERS, HIDDEN = 96, 4, 2, 512


class PatchTransformer(nn.Module):
    """A transformer without positions: the order of the places of its input does not matter."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(channels, WIDTH), nn.LayerNorm(WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> (n, outputs)."""
        vectors = self.embedding(x.flatten(2).transpose(1, 2))
        logits: Tensor = self.head(self.layers(vectors).mean(dim=1))
        return logits


def patches(channels: int, outputs: int) -> nn.Module:
    """Return a network for a set of vectors with ``channels`` values."""
    return PatchTransformer(channels, outputs)


def dense(channels: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
    """Return a dense network, for which any fixed order of the pixels is the same."""
    inputs = channels * math.prod(size)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, outputs),
    )

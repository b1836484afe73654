"""NeuraCrypt-style random networks: patches of an image pass through a secret random network.

Yala et al., "NeuraCrypt: Hiding Private Health Data via Random Neural Networks for Public Training"
(arXiv:2106.02484): a convolution without overlap turns patches into vectors, layers of 1 x 1
convolutions with batch normalization and ReLU follow, a random vector for each position is added,
a last ReLU and linear layer mix them, and the patches of each image are shuffled. All weights are
random, and are the key of the data set. Batch normalization uses the statistics of the batch, so
that an encoding depends a little on its batch.

Carlini et al., "NeuraCrypt is not private" (arXiv:2108.07256), match all encodings of the authors'
challenge with their images. It has no guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from instahide.encryption.encoders.base import ImageEncoder
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.errors import SchemeError

#: Added to a variance before its root is taken.
_LEAST_VARIANCE = 1e-5


class Layer(NamedTuple):
    """SECRET: a linear map, with ``weight`` (outputs, inputs) and ``bias`` (outputs,)."""

    weight: Tensor
    bias: Tensor

    def __repr__(self) -> str:
        return "Layer(hidden)"


class RandomNetwork(NamedTuple):
    """SECRET: the key of a data set.

    Attributes:
        patches: from the values of a patch to a vector.
        hidden: the layers on vectors.
        positions: (patches, width) a vector for each position.
        last: the last layer.
    """

    patches: Layer
    hidden: tuple[Layer, ...]
    positions: Tensor
    last: Layer

    def __repr__(self) -> str:
        return "RandomNetwork(hidden)"


@dataclass(frozen=True)
class NeuraCrypt(ImageEncoder):
    """A random network on patches, random positions, and patches shuffled in each encoding.

    The encoding of an image has the shape (width, H / patch, W / patch): a vector for each patch,
    in random order.

    Attributes:
        patch: side of a patch in pixels; it must divide height and width. The paper uses 16 for
            x-rays of 256 pixels.
        width: length of a vector; the paper uses 2048.
        depth: hidden layers; the paper uses 7.
        shuffle: whether the patches of each encoding are shuffled.

    Raises:
        SchemeError: a value is out of range.

    Examples:
        >>> from instahide.encryption.encoders.rivals.neuracrypt import NeuraCrypt
        >>> NeuraCrypt(patch=4, width=64).output_shape((1, 28, 28))
        (64, 7, 7)
    """

    patch: int = 4
    width: int = 64
    depth: int = 4
    shuffle: bool = True

    name: ClassVar[str] = "neuracrypt"
    title: ClassVar[str] = "Random networks on shuffled patches (NeuraCrypt)"
    paper: ClassVar[str] = "Yala et al., NeuraCrypt, 2021 (arXiv:2106.02484)"
    has_data_set_key: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.patch, self.width) < 1 or self.depth < 0:
            raise SchemeError(
                f"patch = {self.patch}, width = {self.width} and depth = {self.depth} make no "
                "network.",
                "Use patch=4, width=64 and depth=4, say.",
            )

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A vector for each patch.

        Raises:
            SchemeError: the images are volumes, or patches do not divide them.
        """
        if len(shape) != 3 or shape[1] % self.patch or shape[2] % self.patch:
            raise SchemeError(
                f"Images of shape {shape} are not divided by patches of {self.patch} pixels.",
                "Use a patch that divides height and width, or resize the images with `size=`.",
            )
        return self.width, shape[1] // self.patch, shape[2] // self.patch

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> RandomNetwork:
        """Random weights, with the variance of PyTorch's default initialization."""
        width, *places = self.output_shape(shape)
        return RandomNetwork(
            _random_layer(random, shape[0] * self.patch**2, width),
            tuple(_random_layer(random, width, width) for _ in range(self.depth)),
            _tensor(random.normal((math.prod(places), width))),
            _random_layer(random, width, width),
        )

    def transform(self, images: Tensor, key: RandomNetwork, random: SecretRandom) -> Tensor:
        """Encodings (n, width, H / patch, W / patch) of ``images`` (n, C, H, W)."""
        count, shape = len(images), self.output_shape(tuple(images.shape[1:]))
        # (n, patches, values of a patch)
        vectors = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        vectors = _applied(key.patches, vectors).relu()
        for layer in key.hidden:
            vectors = _standardized(_applied(layer, vectors)).relu()
        vectors = _applied(key.last, (vectors + key.positions).relu())
        if self.shuffle:
            order = torch.from_numpy(random.permutations(count, vectors.shape[1]))
            vectors = vectors.gather(1, order[:, :, None].expand_as(vectors))
        return vectors.transpose(1, 2).reshape(count, *shape).contiguous()


def _random_layer(random: SecretRandom, inputs: int, outputs: int) -> Layer:
    """Weights and biases, uniform within 1 / sqrt(inputs) of 0."""
    bound = 1 / math.sqrt(inputs)
    weight, bias = (
        _tensor(bound * (2 * random.uniform(shape) - 1))
        for shape in ((outputs, inputs), (outputs,))
    )
    return Layer(weight, bias)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _applied(layer: Layer, vectors: Tensor) -> Tensor:
    return vectors @ layer.weight.T + layer.bias


def _standardized(vectors: Tensor) -> Tensor:
    """Each entry of ``vectors`` (n, patches, width), standardized over the batch."""
    mean = vectors.mean(dim=(0, 1))
    variance = vectors.var(dim=(0, 1), correction=0)
    return (vectors - mean) / (variance + _LEAST_VARIANCE).sqrt()

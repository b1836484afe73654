"""The interface of instance encoders: from private images, labels and keys to encodings.

An `InstanceEncoder` holds public settings only. The key of a data set and the random draws are
arguments of its methods. `instahide.Scheme`, which describes InstaHide, is an instance encoder.
`ImageEncoder` is a base class for encoders that encode each image by itself.

Term: private image: an image whose pixels are to be protected. Encoding: what is published of it.
Key of a data set: secret values that all encodings of a data set share, if the encoder has any.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data import ImageTable
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.mixing import soft_labels

#: A value of a setting of an encoder.
Setting: TypeAlias = bool | int | float | str


class Encodings(NamedTuple):
    """n encodings, and the private images that are in each.

    Attributes:
        images: (n, ...) float32 encodings.
        labels: (n, classes) float32 labels, mixed as the images are.
        rows: (n, private_k) int64 private images in each encoding, beginning with the one that it
            encodes; all different within an encoding. The exposure of these images is increased.
        coefficients: (n, private_k) float32 share of each of these images in the encoding, from 0
            to 1.
    """

    images: Tensor
    labels: Tensor
    rows: NDArray[np.int64]
    coefficients: NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class EncoderInput:
    """The images that an encoder encodes and mixes with.

    Attributes:
        private: the private images.
        public: the public pool, under the normalization of the private images; None without one.
    """

    private: ImageTable
    public: ImageTable | None = None

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """(n, C, H, W) float32 private images ``rows`` (n,), normalized."""
        return torch.from_numpy(self.private.normalized(rows))

    def labels(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> Tensor:
        """(n, classes) float32: the labels of ``rows`` (n, p), times ``coefficients`` (n, p)."""
        return soft_labels(coefficients, self.private.labels[rows], len(self.private.classes))


class Published(NamedTuple):
    """What is known about a publication before it is made; a guarantee follows from it.

    Attributes:
        images: number of private images.
        shape: (C, H, W) of an image.
        std: standard deviation of the normalization, per channel; pixels lie from 0 to 1 before.
        copies: encodings of each image.
    """

    images: int
    shape: tuple[int, ...]
    std: tuple[float, ...]
    copies: int


@runtime_checkable
class InstanceEncoder(Protocol):
    """An encoder: public settings, and how images become encodings under secret draws.

    It can be pickled, and an attacker has it: it holds no key and no image. All secret values come
    from the draws that its methods receive, never from another random generator.
    """

    @property
    def name(self) -> str:
        """Short name, such as ``neuracrypt``; a folder of encodings states it."""
        ...

    @property
    def title(self) -> str:
        """A description in one line."""
        ...

    @property
    def paper(self) -> str:
        """Its publication."""
        ...

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Its settings by name: a folder of encodings states them."""
        ...

    @property
    def private_k(self) -> int:
        """Private images in an encoding."""
        ...

    @property
    def uses_public(self) -> bool:
        """Whether it mixes public images in."""
        ...

    @property
    def has_data_set_key(self) -> bool:
        """Whether all encodings of a data set share a key.

        Networks then classify encodings under this key only, and copies made under another key do
        not belong to the same data set.
        """
        ...

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the encoding of an image of ``shape`` (C, H, W).

        Raises:
            SchemeError: images of this shape cannot be encoded.
        """
        ...

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> Any:
        """A new key of a data set of images of ``shape``; None if it has none."""
        ...

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: Any, random: SecretRandom
    ) -> Encodings:
        """Encode the private images ``rows`` (n,), which may occur more than once.

        Args:
            source: all private images, and the public pool.
            rows: the images to encode.
            key: the key of the data set, as `draw_key` returned it.
            random: secret values for these encodings alone.
        """
        ...

    def network_input(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        """What a network that was trained on encodings is given to classify ``images``.

        Args:
            images: (n, C, H, W) float32, normalized.
            key: the key of the data set.
            random: further secret values.
        """
        ...

    def epsilon(self, published: Published, delta: float) -> float:
        """An upper bound of epsilon for the pixels of each image; infinite without a guarantee.

        It holds against an attacker who knows labels, partners and all other images. It is never
        below the true value.
        """
        ...


@dataclass(frozen=True)
class EncoderDefaults:
    """What most encoders have in common: no key of the data set, no guarantee.

    A subclass is a frozen dataclass of settings. ``search_values`` has the values that `instahide
    advise` tries, for each setting that it searches.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    private_k: ClassVar[int] = 1
    uses_public: ClassVar[bool] = False
    has_data_set_key: ClassVar[bool] = False
    search_values: ClassVar[Mapping[str, tuple[Setting, ...]]] = {}

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The fields of the dataclass."""
        return asdict(self)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the image."""
        return shape

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> Any:
        """No key."""
        return None

    def epsilon(self, published: Published, delta: float) -> float:
        """Infinite: there is no guarantee."""
        return math.inf


@dataclass(frozen=True)
class ImageEncoder(EncoderDefaults, ABC):
    """Base class of encoders that encode each image by itself and keep its label.

    A subclass is a frozen dataclass of settings with ``name``, ``title``, ``paper`` and
    `transform`; with a key of the data set also `draw_key`, and ``has_data_set_key = True``.

    Examples:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> from instahide import open_split
        >>> from instahide.encryption.encoders.base import ImageEncoder
        >>> from instahide.encryption.encoders.table_encoder import TableEncoder
        >>> @dataclass(frozen=True)
        ... class Negative(ImageEncoder):
        ...     name = "negative"
        ...     title = "The negative of the image"
        ...     paper = "none"
        ...
        ...     def transform(self, images, key, random):
        ...         return -images
        >>> encoder = TableEncoder(Negative(), open_split("digits").train)
        >>> tuple(encoder.encode(np.arange(8)).images.shape)
        (8, 1, 8, 8)
    """

    @abstractmethod
    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        """The encodings of ``images`` (n, C, H, W), normalized."""

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: Any, random: SecretRandom
    ) -> Encodings:
        """The private images ``rows``, transformed, with their labels."""
        images, alone = rows[:, None], np.ones((len(rows), 1), np.float32)
        encoded = self.transform(source.images(rows), key, random)
        return Encodings(encoded, source.labels(images, alone), images, alone)

    def network_input(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        """The images, transformed as the private ones were."""
        return self.transform(images, key, random)

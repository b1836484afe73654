"""InstaHide: train on encrypted images, and see what an attacker gets from them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from instahide._version import __version__

if TYPE_CHECKING:
    from instahide.data import (
        ImageDataset,
        ImageTable,
        LabelTable,
        PhotoCrops,
        open_images,
        open_pool,
        open_split,
    )
    from instahide.encryption.augmentation import Augmentation
    from instahide.encryption.encoder import Encoded, Encoder
    from instahide.encryption.exposure import Exposure
    from instahide.encryption.scheme import Scheme
    from instahide.errors import InstaHideError
    from instahide.integrations.dataloader.wrap import encode_loader
    from instahide.training.data.encoded_loader import EncodedLoader
    from instahide.training.models.model_io import load_network
    from instahide.training.predict import predict_encrypted

_HOMES = {
    "Augmentation": "instahide.encryption.augmentation",
    "Encoded": "instahide.encryption.encoder",
    "Encoder": "instahide.encryption.encoder",
    "Exposure": "instahide.encryption.exposure",
    "Scheme": "instahide.encryption.scheme",
    "InstaHideError": "instahide.errors",
    "ImageDataset": "instahide.data",
    "ImageTable": "instahide.data",
    "LabelTable": "instahide.data",
    "PhotoCrops": "instahide.data",
    "open_images": "instahide.data",
    "open_pool": "instahide.data",
    "open_split": "instahide.data",
    "EncodedLoader": "instahide.training.data.encoded_loader",
    "encode_loader": "instahide.integrations.dataloader.wrap",
    "load_network": "instahide.training.models.model_io",
    "predict_encrypted": "instahide.training.predict",
}

__all__ = [
    "Augmentation",
    "Encoded",
    "EncodedLoader",
    "Encoder",
    "Exposure",
    "ImageDataset",
    "ImageTable",
    "InstaHideError",
    "LabelTable",
    "PhotoCrops",
    "Scheme",
    "__version__",
    "encode_loader",
    "load_network",
    "open_images",
    "open_pool",
    "open_split",
    "predict_encrypted",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import instahide` itself loads nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'instahide' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

"""The first tab: the image, its partners, the mix, the mask, the encoding and its values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instahide.app.demo_images import DemoImages, Pixels
from instahide.app.html import Panel, paragraph, pictures
from instahide.data import ImageTable
from instahide.data.display import denormalize, image_axes, min_max
from instahide.encryption.known_keys import CAPTION, UNMASKED, Illustration, illustrate
from instahide.encryption.privacy import privacy_statement
from instahide.encryption.scheme import LabelMode, Preset, Scheme


@dataclass(frozen=True)
class Wanted:
    """The values of the controls, with the names and meanings of training settings."""

    scheme: Preset = "cross"
    k: int = 4
    c1: float = 0.65
    label_mode: LabelMode = "soft"

    def encryption(self) -> Scheme:
        """The scheme of these values.

        Raises:
            SchemeError: no coefficients can meet the bounds.
        """
        return Scheme.preset(self.scheme, self.k, c1=self.c1, label_mode=self.label_mode)


def encryption_panels(demo: DemoImages, chosen: Pixels, wanted: Wanted) -> str:
    """HTML of the steps of an encryption of ``chosen`` (3, SIDE, SIDE), under new keys.

    Raises:
        SchemeError: as for `Wanted.encryption`.
    """
    scheme, images = wanted.encryption(), demo.private(chosen)
    pool = demo.public if scheme.public_k else None
    steps = illustrate(scheme, images, pool, np.zeros(1, np.int64))
    privacy = privacy_statement(None, noise=bool(scheme.noise))
    texts = [_label(steps, scheme), CAPTION if scheme.mask else UNMASKED, f"{privacy}."]
    shown = pictures(_parts(steps, images, scheme)) + pictures(_results(steps, scheme))
    return shown + "".join(map(paragraph, texts))


def _parts(steps: Illustration, images: ImageTable, scheme: Scheme) -> list[Panel]:
    partners = ["private partner"] * (scheme.private_k - 1) + ["public partner"] * scheme.public_k
    return [
        Panel(f"{name} × {weight:.2f}", denormalize(part, images))
        for name, weight, part in zip(
            ["the image", *partners], steps.coefficients[0], steps.parts[0], strict=True
        )
    ]


def _results(steps: Illustration, scheme: Scheme) -> list[Panel]:
    mask = [Panel("the mask", image_axes(steps.negated[0]))] if scheme.mask else []
    return [
        Panel("the mix", min_max(steps.mixes[0])),
        *mask,
        Panel("the encoding", min_max(steps.encodings[0])),
        Panel("|encoding|", min_max(np.abs(steps.encodings[0]))),
    ]


def _label(steps: Illustration, scheme: Scheme) -> str:
    weights = steps.coefficients[0, : scheme.private_k]
    if scheme.label_mode == "renormalised":
        weights = weights / weights.sum()
    names = ["the image", *["a private partner"] * (scheme.private_k - 1)]
    parts = ", ".join(f"{w:.2f} of {name}'s" for w, name in zip(weights, names, strict=True))
    none = "; public images have none" if scheme.public_k else ""
    return f"Its label, {scheme.label_mode}: {parts}{none}. Labels are not hidden."

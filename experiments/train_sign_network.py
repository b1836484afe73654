"""Train the sign network that comes with the package, on mixes of images that are not private.

    python -m experiments.train_sign_network --seconds 6500 --threads 1

Half of the mixes are of crops of the shadow photographs (see `experiments.photographs`). The other
half are of objects in front of plain backgrounds: crops of the same photographs in random outlines,
icons of the Debian package oxygen-icon-theme, and letters. The schemes vary, and so do the moments
of the normalization. The network is saved every 500 steps, and ``--resume`` continues from it. The
last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.command_line import parsed
from experiments.photographs import patches
from instahide.attacks.reconstruction.pair_encoder.network_file import load_network, save_network
from instahide.attacks.reconstruction.recovery.sign_network import SignNetwork
from instahide.encryption.scheme import Scheme

#: Side of an image, mixes in a batch, and highest learning rate.
SIDE, BATCH, RATE = 32, 48, 2e-3
#: Crops of photographs, and rendered letters.
PATCHES, LETTERS = 30_000, 3_000
#: How often each scheme is drawn.
SCHEMES = [Scheme.cross(6)] * 5 + [Scheme.cross(4)] * 2 + [Scheme.inside(k) for k in (2, 4, 6)]
#: Share of batches of photographs, of gray images, and, among objects, of letters.
PHOTOGRAPHS, GREY, LETTERED = 0.5, 0.2, 0.15
#: Share of batches that are normalized by their own mean; others use one of `MEANS`.
OWN_MEAN, MEANS = 0.7, ((0.5, 0.5, 0.5), (0.485, 0.456, 0.406))
LUMINANCE = torch.tensor((0.299, 0.587, 0.114))[:, None, None]
ICONS = Path("/usr/share/icons/oxygen/base/256x256")


def mixes() -> tuple[Tensor, Tensor]:
    """Return (n, 3, H, W) mixes minus the mean, and this (3,) mean, of pixels from 0 to 1."""
    scheme = SCHEMES[int(torch.randint(len(SCHEMES), ()))]
    drawn = torch.from_numpy(_coefficients(scheme))
    weights = drawn[torch.randint(len(drawn), (BATCH,))].T[:, :, None, None, None]
    source = photographs if torch.rand(()) < PHOTOGRAPHS else objects()
    images = [source() for _ in range(scheme.private_k)]
    own = torch.cat(images)[:100]
    images += [photographs() for _ in range(scheme.public_k)]
    if torch.rand(()) < GREY:
        images = [_grey(image) for image in images]
        own = _grey(own)
    fixed = torch.tensor(MEANS[int(torch.randint(len(MEANS), ()))])
    mean = own.mean(dim=(0, 2, 3)) if torch.rand(()) < OWN_MEAN else fixed
    return (weights * torch.stack(images)).sum(dim=0) - mean[:, None, None], mean


def photographs() -> Tensor:
    """Return (n, 3, H, W) crops of photographs."""
    crops = _crops()[torch.randint(len(_crops()), (BATCH,))].float() / 255
    return crops.flip(3) if torch.rand(()) < 0.5 else crops


def objects() -> Callable[[], Tensor]:
    """Return a source of (n, 3, H, W) objects; all in front of backgrounds of one style."""
    style = int(torch.multinomial(torch.tensor([0.35, 0.15, 0.15, 0.2, 0.15]), 1))
    colour, lettered = torch.rand(1, 3, 1, 1), bool(torch.rand(()) < LETTERED)
    styles: list[Callable[[], Tensor]] = [
        lambda: torch.ones(BATCH, 3, 1, 1),
        lambda: torch.zeros(BATCH, 3, 1, 1),
        lambda: torch.ones(BATCH, 3, 1, 1) * (0.8 + 0.2 * torch.rand(BATCH, 1, 1, 1)),
        lambda: torch.rand(BATCH, 3, 1, 1),
        lambda: colour.expand(BATCH, 3, 1, 1),
    ]

    def source() -> Tensor:
        background = styles[style]()
        if lettered:
            opaque = _letters()[torch.randint(LETTERS, (BATCH,))].float()[:, None] / 255
            return _letter_colours(style) * opaque + background * (1 - opaque)
        cut = _outlines()
        images = photographs() * cut + background * (1 - cut)
        if style:
            return images
        icons = _icons()[torch.randint(len(_icons()), (BATCH,))].float() / 255
        return torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, icons, images)

    return source


def with_anchors(mixes: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``mixes`` turned so that a random anchor is positive, and (n, 1, H, W) 1 at these.

    Anchors are pixels with a large value, as they are in attacks.
    """
    around = F.avg_pool2d(
        F.pad(mixes.abs().mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="reflect"), 3, 1
    ).flatten(1)
    power = torch.where(torch.rand(len(mixes), 1) < 0.5, 4.0, 8.0)
    place = torch.multinomial(around**power + 1e-12, 1)
    values = mixes.mean(dim=1).flatten(1).gather(1, place)
    anchors = torch.zeros(around.shape).scatter_(1, place, 1.0).reshape(-1, 1, SIDE, SIDE)
    return mixes * torch.where(values < 0, -1.0, 1.0)[:, :, None, None], anchors


def step(network: SignNetwork, optimiser: torch.optim.Optimizer) -> float:
    """Take one step, and return the mean squared error relative to the energy of the mixes."""
    with torch.no_grad():
        values, mean = mixes()
        values, anchors = with_anchors(values)
    with torch.autocast("cpu", torch.bfloat16):
        signs = network(values.abs(), mean, anchors)
    errors = (values.abs() * signs.float() - values).square().sum(dim=(1, 2, 3))
    loss = (errors / values.square().sum(dim=(1, 2, 3))).mean()
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss)


def _grey(images: Tensor) -> Tensor:
    return (images * LUMINANCE).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)


@cache
def _coefficients(scheme: Scheme) -> np.ndarray:
    return np.asarray(scheme.simulated_coefficients(), np.float32)


@cache
def _crops() -> Tensor:
    return torch.from_numpy(patches("shadow", PATCHES, 11))


@cache
def _icons() -> Tensor:
    """Return (n, 3, H, W) icons on plain backgrounds, white or random."""
    generator, icons = np.random.default_rng(0), []
    for path in sorted(ICONS.rglob("*.png")):
        icon = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if path.is_symlink() or icon is None or icon.ndim != 3 or icon.shape[2] != 4:
            continue
        white = generator.random() < 0.5
        background = np.full(3, 255) if white else generator.integers(0, 256, 3)
        opaque = icon[..., 3:] / 255
        drawn = icon[..., 2::-1] * opaque + background * (1 - opaque)
        small = cv2.resize(drawn, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        icons.append(small.round().astype(np.uint8).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(icons))


@cache
def _letters() -> Tensor:
    """Return (n, H, W) opacities of turned letters, digits and signs."""
    generator, side, letters = np.random.default_rng(0), 3 * SIDE, []
    for _ in range(LETTERS):
        letter, font = chr(generator.integers(33, 127)), int(generator.integers(0, 8))
        width = int(generator.integers(3, 14))
        (across, up), _ = cv2.getTextSize(letter, font, 3, width)
        drawn = np.zeros((side, side), np.uint8)
        place = ((side - across) // 2, (side + up) // 2)
        size = 3 * generator.uniform(0.7, 1.1)
        cv2.putText(drawn, letter, place, font, size, (255,), width, cv2.LINE_AA)
        turn = cv2.getRotationMatrix2D(
            (side / 2, side / 2), generator.uniform(-25, 25), generator.uniform(0.8, 1.2)
        )
        drawn = cv2.warpAffine(drawn, turn, (side, side))
        letters.append(cv2.resize(drawn, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(letters))


def _letter_colours(style: int) -> Tensor:
    """Return (n, 3, 1, 1) colors of letters: random, or the opposite of the background."""
    if torch.rand(()) < 0.5:
        return torch.rand(BATCH, 3, 1, 1)
    return torch.full((BATCH, 3, 1, 1), 1.0 if style == 1 else 0.0)


def _outlines() -> Tensor:
    """Return (n, 1, H, W) opacities of random connected outlines around the center."""
    field = F.interpolate(torch.randn(BATCH, 1, 5, 5), size=SIDE, mode="bicubic")
    line = torch.linspace(-1, 1, SIDE)
    distance = line[:, None] ** 2 + line**2
    size = 0.6 + 0.6 * torch.rand(BATCH, 1, 1, 1) - 0.3
    return torch.sigmoid((0.5 * field + size - 1.6 * distance) * 14)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6500)
    parser.add_argument("--out", type=Path, default=Path("sign_network.safetensors"))
    parser.add_argument("--resume", type=Path, help="weights to go on with")
    options = parsed(parser)
    network = SignNetwork()
    if options.resume:
        network = load_network(options.resume, lambda _: SignNetwork(), "a sign network", "")
    optimiser = torch.optim.AdamW(network.train().parameters(), weight_decay=1e-4)
    began, steps, mean = time.monotonic(), 0, 0.0
    while (spent := (time.monotonic() - began) / options.seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (steps + 1) / 100) * max(0.02, 1 - spent)
        mean += (step(network, optimiser) - mean) / min(steps + 1, 100)
        steps += 1
        if steps % 500 == 0:
            save_network(options.out, network)
            print(f"{spent:4.0%} step {steps}, loss {mean:.4f}", flush=True)
    save_network(options.out, network)
    print(json.dumps({"seconds": options.seconds, "steps": steps, "loss": round(mean, 4)}))


if __name__ == "__main__":
    main()

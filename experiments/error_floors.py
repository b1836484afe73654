"""Attack noisy encodings with all keys and all other images known, and compare with error floors.

    python -m experiments.error_floors
    python -m experiments.error_floors --kinds digits --steps 0

For an attacker who knows everything but one image and the noise, the image is the mean of a normal
variable. Its best unbiased estimator is least squares, which the floor of
`error_floor.unbiased_floor` bounds. Biased estimators use a prior from public images: shrinkage
towards their mean, the posterior mean of a normal prior with their covariance, the posterior mean
of a mixture around each of them, total variation, and a network that was trained to denoise them.
The best of these is compared with `prior.PixelPrior.floor`, which rests on a prior from the same
images. Least squares of all images together, as the attack on Mixup computes it, knows the keys and
the public images only.

Private images are different ones than the public images: of digits and Fashion-MNIST the test
images, of color patches other photographs.

Each setting adds a row to the CSV file; settings that the file already contains are skipped. The
last line printed is a JSON object: the settings in which a floor was beaten.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.command_line import parsed
from experiments.photographs import crops
from experiments.records import add, keys_in, rows_of, surroundings
from instahide.attacks.reconstruction.recovery.coefficients import weights
from instahide.attacks.reconstruction.recovery.unmasked import least_squares
from instahide.data import ImageTable, open_split
from instahide.data.public.crops import PHOTOS, photo_files
from instahide.data.readers.image_file import decode
from instahide.encryption.exposure import Exposure
from instahide.encryption.guarantees.error_floor import unbiased_floor
from instahide.encryption.guarantees.prior import PixelPrior, estimate_prior, unit_values
from instahide.encryption.known_keys import encode_with_known_keys
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.scheme import Preset, Scheme

OUT = Path("experiments/results/error_floors.csv")
KINDS = ("digits", "fashion-mnist", "patches")
#: Private images that are attacked, and public images for the prior and the networks, at most.
PRIVATE, PUBLIC = 40, 2000
#: Schemes, k and (noise, encodings of each image): 20 settings.
SCHEMES: tuple[tuple[Preset, int], ...] = (("plain", 1), ("inside", 2), ("inside", 4), ("cross", 4))
NOISES = ((0.2, 1), (0.5, 1), (2.0, 1), (0.5, 10), (2.0, 10))
#: A floor counts as beaten if a test rejects it at so many standard deviations. For one setting
#: whose floor holds, this happens with a probability below 4e-6 by a normal approximation.
DEVIATIONS = 4.5
#: The noise that a network learns to remove, in the unit range.
QUIET, LOUD = 0.02, 1.0
Estimator = Callable[[NDArray[np.float64], float], NDArray[np.float64]]


class Setting(NamedTuple):
    """What is attacked."""

    kind: str
    scheme: str
    k: int
    noise: float
    copies: int


class Attacked(NamedTuple):
    """What an attacker who knows everything else learns of n images, in the unit range.

    Attributes:
        truth: (n, C, H, W) the images.
        estimates: (n, C, H, W) by least squares, unbiased.
        joint: (n, C, H, W) by least squares of all images together.
        squares: (n,) sums of squared coefficients.
        losses: (n,) mu^2 as the library counts it.
        overlap: sum of the squared correlations between the errors of two images.
    """

    truth: NDArray[np.float64]
    estimates: NDArray[np.float64]
    joint: NDArray[np.float64]
    squares: NDArray[np.float64]
    losses: NDArray[np.float64]
    overlap: float


@cache
def tables(kind: str) -> tuple[ImageTable, ImageTable]:
    """Return the private images and the public ones."""
    if kind == "patches":
        photos = [decode(path) for path in photo_files(PHOTOS, 3)]
        found = crops(tuple(photos[::2]), PRIVATE, 1), crops(tuple(photos[1::2]), PUBLIC, 2)
        mine, others = (
            ImageTable.from_arrays(pixels, np.arange(len(pixels)) % 2) for pixels in found
        )
        return mine, others
    split = open_split(kind)
    chosen = (np.linspace(0, len(part) - 1, min(most, len(part))).astype(np.int64)
              for part, most in ((split.test, PRIVATE), (split.train, PUBLIC)))  # fmt: skip
    private, public = (
        part.subset(rows) for part, rows in zip((split.test, split.train), chosen, strict=True)
    )
    return private, public


def attack(setting: Setting, private: ImageTable, public: ImageTable) -> Attacked:
    """Encrypt the ``private`` images and estimate each of them from everything else."""
    scheme = Scheme.preset(cast(Preset, setting.scheme), setting.k, noise=setting.noise)
    rows = np.tile(np.arange(len(private)), setting.copies)
    pool = public.subset(slice(0, 500)) if scheme.public_k else None
    made = encode_with_known_keys(scheme, private, pool, rows)
    own = slice(0, scheme.private_k)
    members, shares = made.partners[:, own], made.coefficients[:, own].astype(np.float64)
    signs = np.where(made.negated, -1.0, 1.0)
    seen = signs * made.encoded.images.numpy().astype(np.float64)
    if pool is not None:
        shown = pool.normalized_like(private).normalized().astype(np.float64)
        others = made.partners[:, scheme.private_k :]
        seen -= np.einsum("nk,nkchw->nchw", made.coefficients[:, scheme.private_k :], shown[others])
    truth = private.normalized().astype(np.float64)
    mixing = np.zeros((len(rows), len(private)))
    np.add.at(mixing, (np.arange(len(rows))[:, None], members), shares)
    squares = (mixing**2).sum(axis=0)
    rest = seen - np.tensordot(mixing, truth, axes=1)
    # The same as the weighted mean of what is left of each encoding without all other images.
    estimates = truth + np.tensordot(mixing.T, rest, axes=1) / _column(squares, truth)
    joint = least_squares(torch.from_numpy(seen), weights_of(members, shares, len(private))).numpy()
    exposure = Exposure(len(private))
    exposure.record(members, made.coefficients[:, own])
    losses = exposure.squares * mu_squared_rate(scheme, private.shape, private.std)
    gram = mixing.T @ mixing / np.sqrt(np.outer(squares, squares))
    in_range = (_unit(values, private) for values in (truth, estimates, joint))
    return Attacked(*in_range, squares, losses, float((gram**2).sum()))


def weights_of(members: NDArray[np.int64], shares: NDArray[np.float64], count: int) -> Tensor:
    """Return the (n, count) weights of the attack's own recovery."""
    return weights(torch.from_numpy(members), torch.from_numpy(shares), count)


def _column(values: NDArray[np.float64], like: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _unit(values: NDArray[np.float64], table: ImageTable) -> NDArray[np.float64]:
    mean, std = (np.reshape(each, (-1, 1, 1)) for each in (table.mean, table.std))
    return values * std + mean


class Denoiser(nn.Module):
    """A convolutional network that is told the deviation of the noise."""

    def __init__(self, channels: int, width: int = 32, depth: int = 6) -> None:
        super().__init__()
        sizes = [channels + 1, *[width] * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, images: Tensor, deviation: Tensor) -> Tensor:
        level = deviation.expand(-1, 1, *images.shape[2:])
        cleaned: Tensor = images + self.layers(torch.cat([images, level], dim=1))
        return cleaned


def train_denoiser(public: NDArray[np.float64], steps: int) -> Denoiser:
    """Train a network on ``public`` (n, C, H, W) with noise of all strengths."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = Denoiser(public.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images = torch.from_numpy(public.astype(np.float32))
    span = math.log(LOUD / QUIET)
    for _ in range(steps):
        clean = images[torch.randint(len(images), (64,), generator=generator)]
        deviation = QUIET * torch.exp(span * torch.rand(64, 1, 1, 1, generator=generator))
        noisy = clean + deviation * torch.randn(clean.shape, generator=generator)
        errors = (network(noisy, deviation) - clean).square().flatten(1).mean(dim=1)
        loss = (errors / (deviation.flatten().square() + 0.01)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@cache
def prior_of(kind: str) -> PixelPrior:
    """Return the prior of the public images."""
    return estimate_prior(tables(kind)[1])


@cache
def estimators(kind: str, steps: int) -> dict[str, Estimator]:
    """Return biased estimators of an image, given its estimate and the variance of its noise."""
    _, table = tables(kind)
    public = unit_values(table, np.arange(len(table)))
    found: dict[str, Estimator] = {
        "shrunk": _shrunk(public),
        "wiener": _wiener(public),
        "mixture": _mixture(public),
        "variation": _variation,
    }
    if steps:
        network = train_denoiser(public, steps)
        found["network"] = lambda image, variance: _denoised(network, image, variance)
    return found


def _shrunk(public: NDArray[np.float64]) -> Estimator:
    mean, variance = public.mean(axis=0), public.var(axis=0).mean()
    return lambda image, noise: mean + variance / (variance + noise) * (image - mean)


def _wiener(public: NDArray[np.float64]) -> Estimator:
    """Return the posterior mean of a normal prior."""
    flat = public.reshape(len(public), -1)
    mean = flat.mean(axis=0)
    _, singular, axes = np.linalg.svd(flat - mean, full_matrices=False)
    variances = singular**2 / len(flat)
    # What the axes do not span has the least variance of those that they do.
    floor = variances[variances > 1e-12].min(initial=1.0)

    def posterior(image: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
        away = image.reshape(-1) - mean
        parts = axes @ away
        rest = away - axes.T @ parts
        moved = axes.T @ (variances / (variances + noise) * parts) + floor / (floor + noise) * rest
        return (mean + moved).reshape(image.shape)

    return posterior


def _mixture(public: NDArray[np.float64]) -> Estimator:
    """Return the posterior mean of normal distributions around each of the public images."""
    flat = public.reshape(len(public), -1)
    norms = (flat**2).sum(axis=1)
    apart = norms[:, None] - 2 * flat @ flat[: min(200, len(flat))].T + norms[None, :200]
    # The nearest other image, over values; half of it, as the mean is nearer than an image.
    width = float(np.median(np.sort(apart, axis=0)[1]) / flat.shape[1]) / 2

    def posterior(image: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
        seen = image.reshape(-1)
        distances = norms - 2 * flat @ seen
        shares = np.exp(-(distances - distances.min()) / (2 * (noise + width)))
        mean = shares @ flat / shares.sum()
        return (mean + width / (width + noise) * (seen - mean)).reshape(image.shape)

    return posterior


def _variation(image: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """Return the image with the least total variation near the estimate (a MAP estimate)."""
    from skimage.restoration import denoise_tv_chambolle

    smooth = denoise_tv_chambolle(image, weight=math.sqrt(noise), channel_axis=0)
    return np.asarray(smooth, np.float64)


@torch.no_grad()
def _denoised(network: nn.Module, image: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    deviation = torch.tensor(min(max(math.sqrt(noise), QUIET), LOUD)).reshape(1, 1, 1, 1)
    cleaned: Tensor = network(torch.from_numpy(image.astype(np.float32))[None], deviation)
    return cleaned[0].numpy().astype(np.float64)


def measure(setting: Setting, steps: int) -> dict[str, float | str]:
    """Return errors and floors of one setting, as means over the private images."""
    private, public = tables(setting.kind)
    found = attack(setting, private, public)
    values = found.truth[0].size
    floors = np.array([unbiased_floor(loss, values) for loss in found.losses])
    unbiased = _errors(found.estimates, found.truth)
    prior = prior_of(setting.kind)
    resting = np.array([prior.floor(loss, private.std) for loss in found.losses])
    biased = {
        name: _errors(_clipped(estimate, found), found.truth)
        for name, estimate in estimators(setting.kind, steps).items()
    }
    best = min(biased, key=lambda name: float(biased[name].mean()))
    gap = biased[best] - resting
    return {
        "variance": float(found.truth.var()),
        "floor": float(floors.mean()),
        "least_squares": float(unbiased.mean()),
        "ratio": float((unbiased / floors).mean()),
        "deviations": deviations(found, setting.noise, private.std),
        "joint": float(_errors(found.joint, found.truth).mean()),
        "prior_floor": float(resting.mean()),
        "best": best,
        "best_error": float(biased[best].mean()),
        "prior_ratio": float(biased[best].mean() / resting.mean()),
        "prior_deviations": float(gap.mean() / (gap.std(ddof=1) / math.sqrt(len(gap)))),
        **{name: float(errors.mean()) for name, errors in biased.items()},
    }


def deviations(found: Attacked, noise: float, std: Sequence[float]) -> float:
    """Return how far the errors of least squares are from the floor, in standard deviations.

    In units of their deviations under the Cramer-Rao bound, the errors are standard normal, and
    those of two images are correlated where they share encodings. So the mean of their squares has
    the mean 1 and the variance 2 overlap / (n^2 values).
    """
    scale = noise * np.reshape(std, (-1, 1, 1)) / np.sqrt(_column(found.squares, found.truth))
    mean = np.square((found.estimates - found.truth) / scale).mean()
    spread = math.sqrt(2 * found.overlap / found.truth[0].size) / len(found.truth)
    return float((mean - 1) / spread)


def _clipped(estimate: Estimator, found: Attacked) -> NDArray[np.float64]:
    variances = found.truth[0].size / found.losses
    pairs = zip(found.estimates, variances, strict=True)
    return np.stack([estimate(image, float(noise)) for image, noise in pairs]).clip(0, 1)


def _errors(images: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) mean squared errors."""
    errors: NDArray[np.float64] = np.square(images - truth).mean(axis=(1, 2, 3))
    return errors


def settings_of(kinds: Sequence[str]) -> list[Setting]:
    """Return the 20 settings of each kind."""
    return [
        Setting(kind, scheme, k, noise, copies)
        for kind in kinds
        for scheme, k in SCHEMES
        for noise, copies in NOISES
    ]


FIELDS = (
    *Setting._fields, "steps", "images", "variance", "floor", "least_squares", "ratio",
    "deviations", "joint", "prior_floor", "best", "best_error", "prior_ratio", "prior_deviations",
    "shrunk", "wiener", "mixture", "variation", "network",
    "threads", "torch", "python", "platform", "commit",
)  # fmt: skip


def best_attacked(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return one row for each setting, that of the network with the most training."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: int(row["steps"])):
        found[tuple(row[name] for name in Setting._fields)] = row
    return list(found.values())


def beaten(rows: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Return the settings in which a floor was beaten, by floor."""
    columns = {"unbiased": "deviations", "prior": "prior_deviations"}
    return {
        floor: [
            "{kind} {scheme} k={k} noise={noise} x {copies}".format(**row)
            for row in rows
            if float(row[column]) < -DEVIATIONS
        ]
        for floor, column in columns.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--steps", type=int, default=1500, help="of training the network; 0: none")
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file")
    options = parsed(parser)
    have = keys_in(options.out, (*Setting._fields, "steps"))
    for setting in settings_of(options.kinds.split(",")):
        if (*map(str, setting), str(options.steps)) in have:
            continue
        found = measure(setting, options.steps)
        figures = {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in found.items()
        }
        about = {**setting._asdict(), "steps": options.steps, "images": PRIVATE}
        add(options.out, FIELDS, {**about, **figures, **surroundings()})
        print(setting, figures["ratio"], figures["prior_ratio"], figures["best"], flush=True)
    print(json.dumps(beaten(rows_of(options.out))))


if __name__ == "__main__":
    main()

"""The cost of attacks on a mix by their published formulas.

None of these figures is a guarantee. A number of steps is the cost of *one* attack. The paper's
argument is a lower bound for one formulation of the problem, under an assumption (that k-sum is as
hard as believed), in the worst case, for images like random vectors. Photographs are not like that,
and the attacks that broke the authors' challenge did not solve this problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from instahide.errors import InstaHideError, SchemeError

Kind = Literal["steps of an attack", "encodings that an attack needs", "measured by others"]

#: The last line of every list of figures, in print and in JSON.
CAVEAT = (
    "None of this is a guarantee. Each line is the cost of one way to attack; a large number says "
    "that this way is slow, not that there is no other. Published attacks recovered images from "
    "the authors' own challenge in hours (arXiv:2011.05315)."
)


@dataclass(frozen=True)
class Setting:
    """The parameters of an attacked data set.

    Attributes:
        images: N, the number of private and public images together, all of which the attacker is
            assumed to know.
        k: images in a mix.
        private: number of private images.
        private_k: private images in a mix.
        encodings: number of published encodings.
        values: values of an image, 3,072 for 3 x 32 x 32.

    Raises:
        InstaHideError: no scheme can have these numbers.
    """

    images: int
    k: int
    private: int
    private_k: int = 2
    encodings: int = 1
    values: int = 3072

    def __post_init__(self) -> None:
        if min(self.images, self.private, self.encodings, self.values) < 1 or not (
            1 <= self.private_k <= self.k <= self.images
            and self.private_k <= self.private <= self.images
        ):
            raise SchemeError(
                f"No mix of {self.k} of {self.images} images, {self.private_k} of them of the "
                f"{self.private} private ones, can be attacked.",
                "Give at least k images, as many of them private as a mix has, and at least one "
                "encoding.",
            )


@dataclass(frozen=True)
class Figure:
    """The cost of one attack.

    Attributes:
        name: name of the attack.
        kind: what the number counts.
        log2: base-2 logarithm of the number.
        steps: whether the number counts steps, which take time.
        formula: formula of the number.
        assumes: assumptions of the formula.
        source: publication or script of the formula.
    """

    name: str
    kind: Kind
    log2: float
    steps: bool
    formula: str
    assumes: str
    source: str


@dataclass(frozen=True)
class PricedFigure(Figure):
    """A figure with the time and the price of its steps on one core; None: beyond counting."""

    core_hours: float | None
    dollars: float | None


@dataclass(frozen=True)
class HardnessReport:
    """All figures of a setting; ready for JSON by `dataclasses.asdict`."""

    setting: Setting
    rate: float
    price: float
    figures: list[PricedFigure]
    caveat: str = CAVEAT


def figures(setting: Setting) -> list[Figure]:
    """All known figures for ``setting``."""
    return [*_exhaustive(setting), _square_search(setting), *_samples(setting), _challenge(setting)]


def hours(log2_steps: float, log2_rate: float) -> float:
    """Hours for 2^``log2_steps`` steps at 2^``log2_rate`` steps per second; may be infinite."""
    exponent = log2_steps - log2_rate - math.log2(3600)
    return 2.0**exponent if exponent < 1000 else math.inf


def report(setting: Setting, *, rate: float, price: float) -> HardnessReport:
    """All figures for ``setting``, with what their steps cost.

    Args:
        setting: parameters of the attacked data set.
        rate: steps per second of one core.
        price: dollars per hour of one core.

    Raises:
        InstaHideError: the rate is not positive, the price is negative, or one is not finite.
    """
    if not (0 < rate < math.inf and 0 <= price < math.inf):
        raise InstaHideError(
            f"{rate:g} steps per second at {price:g} dollars per hour give no cost.",
            "For example, use `rate=1e9` and `price=0.05`.",
        )
    rows = []
    for figure in figures(setting):
        took = hours(figure.log2, math.log2(rate)) if figure.steps else None
        finite = took is not None and math.isfinite(took)
        core_hours = took if finite else None
        dollars = None if core_hours is None else core_hours * price
        if dollars is not None and not math.isfinite(dollars):
            dollars = None
        rows.append(PricedFigure(**vars(figure), core_hours=core_hours, dollars=dollars))
    return HardnessReport(setting, rate, price, rows)


def _exhaustive(setting: Setting) -> list[Figure]:
    n, k = setting.images, setting.k
    half = -(-k // 2)
    return [
        Figure(
            "brute force",
            "steps of an attack",
            log2_choices(n, k),
            True,
            "N over k",
            "One step a mix; coefficients are known; the images are among the N that are known.",
            "Counting",
        ),
        Figure(
            "meeting in the middle",
            "steps of an attack",
            half * math.log2(n),
            True,
            "N^(k/2), k/2 rounded up; as much memory",
            "As above. The paper's argument for hardness is that this cannot be beaten by much for "
            "random vectors (a k-vector-sum assumption, worst case).",
            "Huang et al., ICML 2020, section 4; experiments/theory runs it at toy sizes",
        ),
    ]


def _square_search(setting: Setting) -> Figure:
    return Figure(
        "search for one image at a time, in squares",
        "steps of an attack",
        math.log2(setting.images) + math.log2(setting.values),
        True,
        "N x values, for each image of a mix",
        "Photographs, whose squares stand out of a mix each by itself: what the k-vector-sum "
        "argument leaves out. It finds a part of the images; docs/attacks/results.md says how "
        "large a part.",
        "Measured here, by experiments/attacks.py",
    )


def _samples(setting: Setting) -> list[Figure]:
    n, private_k = setting.private, setting.private_k
    gaussian = (
        "Images are independent Gaussian vectors; public images are known; long enough images."
    )
    found = [
        Figure(
            "phase retrieval and sparse factorisation",
            "encodings that an attack needs",
            (private_k - 2 / (private_k + 1)) * math.log2(n),
            False,
            "n^(p - 2/(p + 1)), n private images, p of them in a mix; constants left out",
            gaussian,
            "Chen, Li, Song and Zhuo, ICLR 2021 (arXiv:2011.11181)",
        )
    ]
    if private_k == 2:
        found.append(
            Figure(
                "recovering all images from pairs",
                "encodings that an attack needs",
                math.log2(max(n * math.log(n), 1)),
                False,
                "n log n, n private images; constants left out",
                gaussian,
                "Huang, Song, Tao, Yin, Zhang and Zhuo, arXiv:2011.11877",
            )
        )
    return found


def _challenge(setting: Setting) -> Figure:
    return Figure(
        "the attack on the authors' challenge",
        "measured by others",
        math.log2(5000),
        False,
        "5,000 encodings of 100 images, k = 6: about 14 hours, 12 of them on a GPU",
        f"Its time grows as the cube of the encodings; there are {setting.encodings:,} here.",
        "Carlini et al., arXiv:2011.05315; the challenge's leaderboard",
    )


def log2_choices(n: int, k: int) -> float:
    """log2 of the number of ways to choose ``k`` of ``n``."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)

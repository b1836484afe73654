"""PUBLIC: the parameters of an encryption, and their validation.

============================  =======  ===========================================================
name                          symbol   meaning
============================  =======  ===========================================================
``k``                         k        images in a mix, the encrypted one included
``private_k``                          how many of them are private; the other k - private_k are
                                       public
``c1``                        c1       upper bound of every coefficient lambda_j
``c2``                        c2       lower bound of the sum of the private coefficients
``min_self_coefficient``               lower bound of the encrypted image's own coefficient: 0 in
                                       training, the query coefficient for a query
``mask``                      sigma    whether every value gets a random sign; without it, the
                                       scheme is Mixup
``label_mode``                y~       "soft": sum of lambda_j onehot(y_j) over the private images;
                                       "renormalised": the same, divided by their total
                                       coefficient
``coefficient_distribution``  lambda   "half-normal": k values of abs(N(0, 1)) over their sum, as
                                       the authors draw them; "dirichlet": uniform on the simplex
``noise``                              standard deviation of Gaussian noise on every value of an
                                       encoding, in units of normalized images: 0, or from 1e-6 to
                                       1e6; docs/noise.md states its guarantee
============================  =======  ===========================================================

Both distributions are conditioned on the bounds. Source: Huang, Song, Li, Arora, "InstaHide"
(ICML 2020, arXiv:2010.02772), sections 2 and 4 and algorithm 2.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from instahide.data.labels import Task
from instahide.encryption.encoders.instahide import InstaHideEncoder
from instahide.errors import SchemeError

LabelMode = Literal["soft", "renormalised"]
CoefficientDistribution = Literal["half-normal", "dirichlet"]
#: Names for `Scheme.preset`.
Preset = Literal["inside", "cross", "mixup", "plain"]

#: Bounds that a smaller share of draws meets are refused: rejection sampling would be too slow.
LEAST_ACCEPTANCE = 1e-3
#: Largest k, far above a useful one; the coefficients of a mix are simulated.
MOST_IMAGES = 100
#: Bounds of noise other than 0. Beyond them, it would be lost in float32, or an image in the noise.
LEAST_NOISE, MOST_NOISE = 1e-6, 1e6
_TRIALS = 20_000


@dataclass(frozen=True)
class Scheme(InstaHideEncoder):
    """The public parameters of an encryption; the table above defines each of them.

    Use `cross`, `inside`, `mixup`, `plain` or `preset` for the schemes of the paper.

    Raises:
        SchemeError: a value has the wrong type or is out of range, or fewer than 1 in 1000 drawn
            coefficient vectors meet the bounds.

    Examples:
        >>> from instahide import Scheme
        >>> scheme = Scheme.cross(4)
        >>> scheme.k, scheme.private_k, scheme.public_k
        (4, 2, 2)
        >>> Scheme.inside(6).public_k
        0
    """

    k: int = 4
    private_k: int = 2
    c1: float = 0.65
    c2: float = 0.3
    min_self_coefficient: float = 0.0
    mask: bool = True
    label_mode: LabelMode = "soft"
    coefficient_distribution: CoefficientDistribution = "half-normal"
    noise: float = 0.0

    def __post_init__(self) -> None:
        _validate(self)

    @classmethod
    def inside(cls, k: int = 4, **changes: Any) -> Scheme:
        """All k images are private."""
        return cls(**{"k": k, "private_k": k, "c1": _bound(k), "c2": 0.0} | changes)

    @classmethod
    def cross(cls, k: int = 4, **changes: Any) -> Scheme:
        """Two private images and k - 2 public ones, as in the paper."""
        return cls(**{"k": k, "private_k": 2} | changes)

    @classmethod
    def mixup(cls, k: int = 4, **changes: Any) -> Scheme:
        """`inside` without the mask. It hides nothing and is only a baseline."""
        return cls.inside(k, **{"mask": False} | changes)

    @classmethod
    def plain(cls, **changes: Any) -> Scheme:
        """No encryption: images are not changed."""
        return cls(**{"k": 1, "private_k": 1, "c1": 1.0, "c2": 0.0, "mask": False} | changes)

    @classmethod
    def preset(
        cls,
        name: Preset,
        k: int = 4,
        *,
        private_k: int | None = None,
        c1: float | None = None,
        c2: float | None = None,
        label_mode: LabelMode | None = None,
        coefficient_distribution: CoefficientDistribution | None = None,
        noise: float = 0.0,
    ) -> Scheme:
        """The preset ``name`` with changes; None keeps its value. `plain` takes only ``noise``.

        >>> Scheme.preset("cross", 6, c2=None).private_k
        2

        Raises:
            SchemeError: there is no such preset, or as `Scheme`.
        """
        if name not in get_args(Preset):
            raise SchemeError(
                f"scheme = {name!r} is unknown.", f"Use one of {', '.join(get_args(Preset))}."
            )
        if name == "plain":
            return cls.plain(noise=noise)
        changes = {
            "private_k": private_k, "c1": c1, "c2": c2, "label_mode": label_mode,
            "coefficient_distribution": coefficient_distribution,
        }  # fmt: skip
        given = {field: value for field, value in changes.items() if value is not None}
        make = {"inside": cls.inside, "cross": cls.cross, "mixup": cls.mixup}[name]
        return make(k, noise=noise, **given)

    def query(self, coefficient: float = 0.5) -> Scheme:
        """The scheme for a query with at least this ``coefficient`` (paper, section 4.2).

        A query is mixed with k - 1 public images if this scheme uses public images, else with
        other queries.
        """
        private_k = 1 if self.public_k else self.k
        c1 = max(self.c1, _bound(self.k))
        return replace(self, private_k=private_k, c1=c1, c2=0.0, min_self_coefficient=coefficient)

    @property
    def public_k(self) -> int:
        """Public images in a mix."""
        return self.k - self.private_k

    @property
    def is_plain(self) -> bool:
        """Whether the scheme does not change images."""
        return self.k == 1 and not self.noise

    @cached_property
    def acceptance(self) -> float:
        """Share of drawn coefficient vectors that meet the bounds, by simulation."""
        return len(self.simulated_coefficients()) / _TRIALS

    def simulated_coefficients(self) -> NDArray[np.float64]:
        """(m, k) coefficients that meet the bounds, from a simulation with a fixed seed.

        They are never those of a key. Means are accurate to about 0.002.
        """
        generator = np.random.default_rng(0)
        normal = self.coefficient_distribution == "half-normal"
        draw = generator.standard_normal if normal else generator.standard_exponential
        raw = np.abs(draw((_TRIALS, self.k)))
        shares = raw / raw.sum(axis=1, keepdims=True)
        return np.asarray(shares[self.meets_bounds(shares)])

    def meets_bounds(
        self, coefficients: NDArray[np.float32] | NDArray[np.float64]
    ) -> NDArray[np.bool]:
        """Whether each row of ``coefficients`` (n, k) meets c1 and c2."""
        # In float64: NumPy might round c1 up to float32.
        largest = coefficients.max(axis=1).astype(np.float64)
        private = coefficients[:, : self.private_k].sum(axis=1, dtype=np.float64)
        own = coefficients[:, 0].astype(np.float64)
        # With no public image the private sum is 1 but for rounding, and c2 says nothing.
        meets = (largest <= self.c1) & ((private >= self.c2) | (self.public_k == 0))
        meets &= own >= self.min_self_coefficient
        return np.asarray(meets, np.bool)

    def to_json(self) -> str:
        """The scheme as a JSON object; nothing in it is secret."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scheme:
        """Read what `to_json` wrote.

        Raises:
            SchemeError: ``text`` is not such a JSON object, or the scheme is not valid.
        """
        try:
            values = json.loads(text)
            unknown = set(values) - {field.name for field in fields(cls)}
        except (ValueError, TypeError, RecursionError) as error:
            raise SchemeError(
                "This is not a scheme in JSON.", "Write one with `to_json`."
            ) from error
        if not isinstance(values, dict) or unknown:
            raise SchemeError(
                "This JSON is not a scheme, or has unknown fields.",
                f"A scheme's fields are {', '.join(field.name for field in fields(cls))}.",
            )
        return cls(**values)


def label_mode_for(task: Task, stated: LabelMode | None = None) -> LabelMode:
    """The ``stated`` label mode; by default the paper's for classes, else ``renormalised``.

    `validation.require_label_mode` says why.
    """
    return stated or ("soft" if task == "single-label" else "renormalised")


def _bound(k: int) -> float:
    """The authors' 0.65, or 1 for a mix of one image."""
    return 0.65 if k > 1 else 1.0


#: A condition, and the problem and the remedy if it is false.
_Rule: TypeAlias = tuple[bool, str, str]


def _validate(scheme: Scheme) -> None:
    _validate_types(scheme)
    for holds, problem, remedy in _bound_rules(scheme) + _other_rules(scheme):
        if not holds:
            raise SchemeError(problem, remedy)
    if scheme.acceptance < LEAST_ACCEPTANCE:
        raise SchemeError(
            f"Fewer than 1 in {1 / LEAST_ACCEPTANCE:.0f} draws meet c1 = {scheme.c1}, "
            f"c2 = {scheme.c2} and min_self_coefficient = {scheme.min_self_coefficient} with "
            f"k = {scheme.k} and {scheme.private_k} private images.",
            "Raise c1, or lower c2 or min_self_coefficient.",
        )


def _bound_rules(scheme: Scheme) -> list[_Rule]:
    k, private_k, c1, c2 = scheme.k, scheme.private_k, scheme.c1, scheme.c2
    own = scheme.min_self_coefficient
    return [
        (k >= 1, f"k = {k}: a mix holds at least one image.", "Use k = 4 or more."),
        (k <= MOST_IMAGES, f"k = {k} is too many images for one mix.", "Use k = 4 or 6."),
        (
            1 <= private_k <= k,
            f"private_k = {private_k} does not fit k = {k}.",
            f"Use from 1 to {k} private images, the encrypted one included.",
        ),
        (
            c1 * k > 1 or k == 1 == c1,
            f"c1 = {c1} cannot be met: {k} coefficients that sum to 1 are not all below it.",
            "Use c1 = 1 for k = 1." if k == 1 else f"Raise c1 above 1/k = {1 / max(k, 1):.3f}.",
        ),
        (c1 <= 1, f"c1 = {c1} is above 1, the sum of the coefficients.", "Use a c1 of at most 1."),
        (
            0 <= c2 <= 1,
            f"c2 = {c2}: a sum of coefficients lies between 0 and 1.",
            "Use c2 = 0.3, or 0 for no lower bound.",
        ),
        (
            c2 <= private_k * c1,
            f"c2 = {c2} is out of reach: {private_k} private coefficients of at most c1 = {c1} "
            f"sum to no more than {private_k * c1:.3f}.",
            "Lower c2, raise c1, or mix more private images.",
        ),
        (
            0 <= own <= c1,
            f"min_self_coefficient = {own} is out of reach: a coefficient lies between 0 and "
            f"c1 = {c1}.",
            "Lower the query coefficient, or raise c1.",
        ),
    ]


def _other_rules(scheme: Scheme) -> list[_Rule]:
    return [
        (
            scheme.label_mode in get_args(LabelMode),
            f"label_mode = {scheme.label_mode!r} is not a label mode.",
            f"Use one of {', '.join(get_args(LabelMode))}.",
        ),
        (
            scheme.coefficient_distribution in get_args(CoefficientDistribution),
            f"coefficient_distribution = {scheme.coefficient_distribution!r} is unknown.",
            f"Use one of {', '.join(get_args(CoefficientDistribution))}.",
        ),
        (
            scheme.noise == 0 or LEAST_NOISE <= scheme.noise <= MOST_NOISE,
            f"noise = {scheme.noise} is out of range.",
            f"Use 0 for no noise, or a number from {LEAST_NOISE:g} to {MOST_NOISE:,.0f}.",
        ),
    ]


def _validate_types(scheme: Scheme) -> None:
    wanted: dict[str, tuple[type, ...]] = {
        "k": (int,), "private_k": (int,), "c1": (int, float), "c2": (int, float),
        "min_self_coefficient": (int, float), "mask": (bool,), "noise": (int, float),
    }  # fmt: skip
    for name, kinds in wanted.items():
        value = getattr(scheme, name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise SchemeError(
                f"{name} = {value!r} is not {' or '.join(kind.__name__ for kind in kinds)}.",
                f"Give {name} as a {kinds[-1].__name__}.",
            )
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            # Too large for the comparisons of the rules.
            raise SchemeError(f"{name} is too large.", "Use k = 4, and bounds below 1.")

"""A candidate of the search: a scheme, and the number of encodings of each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from instahide.data.labels import Task
from instahide.encryption.scheme import LabelMode, Scheme, label_mode_for
from instahide.errors import SchemeError

if TYPE_CHECKING:
    from optuna import Trial

#: Schemes that are searched. Mixup and plain training hide nothing.
Searched = Literal["inside", "cross"]
SEARCHED: tuple[Searched, ...] = ("inside", "cross")


def searched(names: Sequence[str]) -> tuple[Searched, ...]:
    """The schemes of these names; all if there are none.

    Raises:
        SchemeError: a scheme is not searched.
    """
    strange = [name for name in names if name not in SEARCHED]
    if strange:
        raise SchemeError(
            f"Settings of the scheme {strange[0]!r} are not searched.",
            f"Use {' or '.join(SEARCHED)}: other schemes hide nothing.",
        )
    return tuple(scheme for scheme in SEARCHED if scheme in names) or SEARCHED


class Candidate(BaseModel):
    """One setting: how images are encrypted, and how many encodings of each are published.

    Fields that are None have the value of the scheme's preset.

    Examples:
        >>> from instahide.audit.advice.candidate import Candidate
        >>> candidate = Candidate(scheme="cross", k=4, noise=0.5, copies=2)
        >>> candidate.name
        'cross-k4-noise0.5-T2'
        >>> candidate.encryption("single-label").public_k
        2
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    scheme: Searched = Field(description="how images are mixed")
    k: int = Field(description="images in a mix")
    private_k: int | None = Field(default=None, description="private images in a mix")
    c1: float | None = Field(default=None, description="bound of every coefficient")
    label_mode: LabelMode | None = Field(default=None, description="labels of a mix")
    noise: float = Field(default=0.0, description="standard deviation of the noise")
    copies: int = Field(default=1, description="encodings of each image")

    @property
    def name(self) -> str:
        """A short name, different for each candidate and valid in a file name."""
        parts = [
            self.scheme,
            f"k{self.k}",
            f"private{self.private_k}" if self.private_k is not None else "",
            f"c{self.c1:g}" if self.c1 is not None else "",
            self.label_mode or "",
            f"noise{self.noise:g}" if self.noise else "",
            f"T{self.copies}",
        ]
        return "-".join(filter(None, parts))

    def encryption(self, task: Task) -> Scheme:
        """The scheme, for labels of ``task``.

        Raises:
            SchemeError: the values do not fit each other.
        """
        return Scheme.preset(
            self.scheme,
            self.k,
            private_k=self.private_k,
            c1=self.c1,
            label_mode=label_mode_for(task, self.label_mode),
            noise=self.noise,
        )

    def settings(self) -> dict[str, Any]:
        """The settings, by the names of `TrainSettings`; those of the preset are left out."""
        return self.model_dump(exclude_none=True)


class Space:
    """All candidates of a search, as a grid.

    Args:
        schemes: schemes to search.
        task: kind of the labels; the label mode is searched for classes only.

    Examples:
        >>> from instahide.audit.advice.candidate import Space
        >>> space = Space(["inside"], "single-label")
        >>> {candidate.scheme for candidate in space.candidates()}
        {'inside'}
    """

    #: Values that are tried. A c1 that k does not allow becomes the preset's.
    K: Mapping[Searched, tuple[int, ...]] = {"inside": (2, 3, 4, 6), "cross": (4, 6)}
    PRIVATE_K = (2, 1, 3)
    C1 = (None, 0.5, 0.4)
    NOISE = (
        0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 2.0, 2.5, 3.0,
    )  # fmt: skip
    COPIES = (1, 2, 3, 5, 10, 20)
    #: The first candidates (scheme, noise, encodings of each image), which span the range.
    FIRST: tuple[tuple[Searched, float, int], ...] = (
        ("cross", 0.0, 1), ("cross", 1.0, 1), ("inside", 0.5, 1), ("cross", 2.0, 1),
        ("inside", 0.0, 2), ("cross", 0.5, 2), ("inside", 1.0, 2), ("cross", 1.6, 3),
        ("cross", 0.0, 5), ("inside", 2.0, 5),
    )  # fmt: skip

    def __init__(self, schemes: Sequence[Searched], task: Task) -> None:
        self.schemes = list(schemes)
        self.labels: tuple[LabelMode | None, ...] = (
            (None, "renormalised") if task == "single-label" else (None,)
        )

    def first(self) -> list[Candidate]:
        """The first candidates, those with few encodings first, because they cost least."""
        return [
            Candidate(scheme=scheme, k=4, noise=noise, copies=copies)
            for scheme, noise, copies in self.FIRST
            if scheme in self.schemes
        ]

    def candidates(self) -> list[Candidate]:
        """All candidates, each once."""
        return list(dict.fromkeys(self._grid()))

    @property
    def sizes(self) -> dict[str, int]:
        """The number of values of each parameter of a trial, which are numbered from 0."""
        return {
            "scheme": len(self.schemes),
            "k": max(len(self.K[scheme]) for scheme in self.schemes),
            "private_k": len(self.PRIVATE_K),
            "c1": len(self.C1),
            "label_mode": len(self.labels),
            "noise": len(self.NOISE),
            "copies": len(self.COPIES),
        }

    def suggested(self, trial: Trial) -> Candidate:
        """The candidate that ``trial`` suggests."""
        scheme, *places = (
            trial.suggest_int(name, 0, size - 1) for name, size in self.sizes.items()
        )
        return self._candidate(self.schemes[scheme], *places)

    def parameters(self, candidate: Candidate) -> dict[str, int]:
        """Parameters of a trial that suggests ``candidate``."""
        return {
            "scheme": self.schemes.index(candidate.scheme),
            "k": self.K[candidate.scheme].index(candidate.k),
            "private_k": self.PRIVATE_K.index(candidate.private_k or 2),
            "c1": self.C1.index(candidate.c1),
            "label_mode": self.labels.index(candidate.label_mode),
            "noise": self.NOISE.index(candidate.noise),
            "copies": self.COPIES.index(candidate.copies),
        }

    def _grid(self) -> Iterator[Candidate]:
        schemes, *sizes = map(range, self.sizes.values())
        for scheme, *places in product(schemes, *sizes):
            yield self._candidate(self.schemes[scheme], *places)

    def _candidate(self, scheme: Searched, *places: int) -> Candidate:
        """The candidate at these places of the grid, without what its scheme does not use."""
        k_place, private_k, c1, labels, noise, copies = places
        k = self.K[scheme][min(k_place, len(self.K[scheme]) - 1)]
        bound, cross = self.C1[c1], scheme == "cross"
        private = self.PRIVATE_K[private_k]
        return Candidate(
            scheme=scheme,
            k=k,
            private_k=private if cross and private != 2 else None,
            c1=bound if bound is not None and bound * k > MOST_EVEN else None,
            # Without public images, the labels of both modes are the same.
            label_mode=self.labels[labels] if cross else None,
            noise=self.NOISE[noise],
            copies=self.COPIES[copies],
        )


#: Least product of c1 and k. Near 1, all coefficients are nearly equal, and few draws are so.
MOST_EVEN = 1.1

"""The names of the baselines of a leaderboard, which no submission of others may have."""

from __future__ import annotations

from instahide.errors import DataError

#: The attacks, in the order in which they are run. Averaging follows the reconstruction, which
#: finds out for it which encodings are of one image.
BLANK, OURS = "blank", "reconstruction"
AVERAGING = ("averaging", "averaging-absolute")
BASELINES = (BLANK, OURS, *AVERAGING, "carlini", "fusion-denoising")
#: The author of their entries.
AUTHOR = "baseline of instahide"


def require_other_attack(attack: str) -> None:
    """Check that an ``attack`` is not named like a baseline, whatever its case and outer spaces.

    Raises:
        DataError: it is.
    """
    if _plain(attack) in BASELINES:
        raise DataError(
            f"The attack is named {attack!r}, as a baseline of the leaderboard.",
            "Give the attack another name in submission.json.",
        )


def require_other_author(author: str) -> None:
    """Check that an ``author`` is not that of the baselines, whatever its case and outer spaces.

    Raises:
        DataError: it is.
    """
    if _plain(author) == AUTHOR:
        raise DataError(
            f"The author is named {author!r}, as that of the baselines of the leaderboard.",
            "Name another author in submission.json, or enter the baselines with `run_baselines`.",
        )


def _plain(text: str) -> str:
    return text.strip().casefold()

"""The README of a challenge folder, for attackers; and the notes in the folder of the truth."""

from __future__ import annotations

from importlib.resources import files

from instahide.audit.challenge.facts import PublicFacts
from instahide.errors import printable

README = "README.md"
#: The file that marks a secret truth.
MARK = "SECRET.txt"
#: Notes in the folder of the truth.
COMPETITION_NOTE = """SECRET: the truth behind a challenge.

Private images, partners and coefficients are here in the clear, for the scorer alone. Do not give
this folder to anybody who attacks the challenge, and do not put it where the encodings are.
"""
PRACTICE_NOTE = """The truth behind a practice set, which everybody can make from the public seed.

Private images, partners and coefficients are here in the clear, so that you can score submissions
yourself. An attack that reads this folder has attacked nothing.
"""


def readme(
    facts: PublicFacts, encodings: tuple[int, ...], decryption: tuple[int, ...], classes: int
) -> str:
    """The README of a challenge.

    Args:
        facts: of the challenge.
        encodings: (N, H, W, C) shape of the encodings.
        decryption: (N, H, W, C) shape of a submission.
        classes: columns of the labels.
    """
    plain = dict(facts)
    settings = ", ".join(f"{name} = {value}" for name, value in facts.scheme.items())
    plain["kind"] = _template(f"{facts.kind}.md").format(**plain).strip()
    plain["encoder"] = printable(facts.encoder)
    return _template(README).format(
        **plain,
        settings=printable(settings) or "none",
        images=encodings[0] // facts.copies,
        shape=" x ".join(map(str, encodings)),
        decryption=decryption,
        count=encodings[0],
        classes=classes,
    )


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")

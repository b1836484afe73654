"""The README of a challenge folder, for attackers; and the notes in the folder of the truth."""

from __future__ import annotations

from instahide.audit.challenge.facts import ENCODINGS, FACTS, LABELS, PublicFacts
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

_TEXT = """# Challenge {id}, version {version}

Recover private images from their encodings. SHA-256 of this challenge:

    {sha256}

{kind}

## Files

| file | contents |
| --- | --- |
| `{encodings}` | encodings of normalized images, {shape} (N x H x W x C) float32 |
| `{labels}` | their labels, {count:,} x {classes} (N x classes) float32 |
| `{facts}` | all public parameters |

{images} private images were encoded {copies} times each, in random order, by the encoder
`{encoder}` with these settings: {settings}.

Before, an image with pixels from 0 to 1 was normalized, per channel: `(pixel - mean) / std`, with
the mean and std of `{facts}`. Which encodings are of one image, the partners, the coefficients and
the masks are not stated.

## Check the files

```python
import hashlib, json
from pathlib import Path

facts = json.loads(Path("challenge.json").read_text())
for name, sha256 in facts["files"].items():
    assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == sha256, name
claimed = facts.pop("sha256")
text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
assert claimed == hashlib.sha256(text.encode()).hexdigest()
print(claimed)
```

It must print the SHA-256 that whoever runs the challenge has published.

## Submit

A submission is a folder with two files:

- `decryption.npy`: one image for each encoding, in the order of the encodings, {decryption}
  (N x H x W x C) float32, normalized as above. For each encoding, show the private image of its mix
  that you know best.
- `submission.json`: your attack. `author` and `url` may be left out.

```python
import json
from pathlib import Path

import numpy as np

decryption = np.zeros({decryption}, np.float32)  # Put your images here.
folder = Path("submission")
folder.mkdir()
np.save(folder / "decryption.npy", decryption)
(folder / "submission.json").write_text(json.dumps({{
    "challenge": "{sha256}",
    "attack": "the name of your attack",
    "version": "1.0",
    "author": "your name",
    "url": "https://example.org/paper",
}}))
```

## Scores

Each decryption is compared with every private image of its mix. Submissions are ranked by
**Max_SSIM**: for each encoding the largest SSIM to one of them, averaged over all encodings. 1 is
the best. The score also has Mean_SSIM, Min_L2, Max_L2 and Mean_L2, as defined by the challenge of
InstaHide's authors, and the number of private images that are recovered: with an SSIM above 0.5 and
clearly above that of the best picture of a single color.

## What a result means

{honest}
"""
_KINDS = {
    "competition": (
        "This is a competition: the keys were drawn at random and dropped, and the truth is with "
        "whoever runs it."
    ),
    "practice": (
        "This is a practice set: keys and truth follow from the public seed {seed}, so everybody "
        "can score an attack, and everybody can decrypt the set. To make it again, with its "
        "truth:\n\n    {command}\n\nA result on it is an attacker's own claim: the truth was at "
        "hand."
    ),
}
_HONEST = (
    "If nobody recovers the images, they are not thereby safe: the attacks that were tried failed "
    "on these images, with this much time. InstaHide is no guarantee. The challenge of its authors "
    "fell to a published attack (arXiv:2011.05315)."
)


def readme(
    facts: PublicFacts,
    encodings: tuple[int, ...],
    decryption: tuple[int, ...],
    classes: int,
    command: str = "",
) -> str:
    """The README of a challenge.

    Args:
        facts: of the challenge.
        encodings: (N, H, W, C) shape of the encodings.
        decryption: (N, H, W, C) shape of a submission.
        classes: columns of the labels.
        command: the command that makes a practice set.
    """
    seed = facts.recipe.seed if facts.recipe else None
    settings = ", ".join(f"{name} = {value}" for name, value in facts.scheme.items())
    return _TEXT.format(
        id=facts.id, version=facts.version, sha256=facts.sha256,
        kind=_KINDS[facts.kind].format(seed=seed, command=command),
        encodings=ENCODINGS, labels=LABELS, facts=FACTS,
        count=encodings[0], shape=" x ".join(map(str, encodings)), classes=classes,
        images=encodings[0] // facts.copies, copies=facts.copies,
        encoder=printable(facts.encoder), settings=printable(settings) or "none",
        decryption=decryption, honest=_HONEST,
    )  # fmt: skip

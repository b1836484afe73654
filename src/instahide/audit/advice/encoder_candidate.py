"""A candidate of the search that is no scheme of InstaHide: another encoder with its settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from instahide.audit.advice.candidate import Candidate
from instahide.data.labels import Task
from instahide.encryption.encoders.base import InstanceEncoder, Setting
from instahide.encryption.encoders.registry import encoder_named, parse_settings
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: Most settings of one encoder that are tried.
MOST_SETTINGS = 100
#: Why encoders with a key of the data set are measured, but never recommended.
SHARED_KEY = (
    "All encodings share one key. The attacks of the search train under keys of their own and do "
    "not attack this one, so that a low share that is recovered does not mean safety. Such "
    "encoders are shown for comparison and are never recommended."
)
#: Why schemes without a ceiling are measured, but never recommended.
UNKNOWN_CEILING = (
    "The ceiling was not computed, because the encodings have too many values. More may be exposed "
    "than attacks recovered, so that such settings are never recommended. Use smaller images, or "
    "fewer encodings of each."
)


class EncoderCandidate(BaseModel):
    """One setting of an encoder that was named, with one encoding of each image.

    There is one encoding of each image because the attacks that take any encoder look at single
    encodings: several encodings of an image would look safer than they are.

    Examples:
        >>> from instahide.audit.advice.encoder_candidate import EncoderCandidate
        >>> candidate = EncoderCandidate(encoder="dp-instahide", encoder_settings=("noise=2.0",))
        >>> candidate.name
        'dp-instahide-noise=2.0-T1'
        >>> candidate.encryption("single-label").settings["noise"]
        2.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    encoder: str = Field(max_length=200, description="the encoder, as `encoder_named` takes it")
    encoder_settings: tuple[str, ...] = Field(default=(), description="its settings, each as k=6")
    copies: Literal[1] = Field(default=1, description="encodings of each image")

    @property
    def name(self) -> str:
        """A short name, different for each candidate and valid in a file name."""
        text = "-".join([self.encoder, *self.encoder_settings, f"T{self.copies}"])
        plain = re.sub(r"[^A-Za-z0-9.=_-]+", "-", text)[:80].lstrip(".")
        if plain == text:
            return text
        return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def encryption(self, task: Task) -> InstanceEncoder:
        """The encoder; it may import the package that `encoder` names.

        Raises:
            InstaHideError: there is no such encoder, or a setting does not fit.
        """
        return encoder_named(self.encoder, parse_settings(self.encoder_settings))

    def settings(self) -> dict[str, Any]:
        """The settings, by the names of `TrainSettings`."""
        stated = {"encoder_settings": list(self.encoder_settings)} if self.encoder_settings else {}
        return {"encoder": self.encoder, **stated, "copies": self.copies}


#: A setting to measure.
AnyCandidate = Candidate | EncoderCandidate


def encoder_candidates(
    encoders: Sequence[str], settings: Sequence[str] = ()
) -> list[EncoderCandidate]:
    """The candidates of the ``encoders`` that were named; it may import their packages.

    An encoder that declares ``search_values`` is tried with each combination of them, another one
    with its defaults.

    Args:
        encoders: names, as for `encoder_named`.
        settings: settings of the encoder, if there is only one; each as ``k=6``. They are not
            searched.

    Raises:
        InstaHideError: an encoder is unknown, named twice or hides nothing, a setting does not fit,
            or there are settings of several encoders.
    """
    if len(set(encoders)) < len(encoders) or "plain" in encoders:
        raise InstaHideError(
            "An encoder is named twice, or is `plain`, which hides nothing.",
            "Name each encoder once. Plain training is always measured.",
        )
    if settings and len(encoders) != 1:
        raise InstaHideError(
            f"There are settings of an encoder, and {len(encoders)} encoders.",
            "Name one encoder, or leave the settings out.",
        )
    fixed = parse_settings(settings)
    return [candidate for name in encoders for candidate in _of_encoder(name, fixed)]


def _of_encoder(name: str, fixed: dict[str, Setting]) -> Iterator[EncoderCandidate]:
    declared = getattr(encoder_named(name, fixed), "search_values", {})
    searched = {key: values for key, values in declared.items() if key not in fixed}
    combinations = list(product(*searched.values()))
    if len(combinations) > MOST_SETTINGS:
        raise InstaHideError(
            f"The encoder {name:.80} declares {len(combinations):,} combinations of settings.",
            f"Fix some of them ({', '.join(searched)}): at most {MOST_SETTINGS} are tried.",
        )
    for values in combinations:
        stated = fixed | dict(zip(searched, values, strict=True))
        texts = tuple(f"{key}={_text(value)}" for key, value in stated.items())
        yield EncoderCandidate(encoder=name, encoder_settings=texts)


def _text(value: Setting) -> str:
    """The value as `parse_settings` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def never_recommended(candidate: AnyCandidate, task: Task) -> str | None:
    """Why a candidate is measured, but never recommended; None if it may be."""
    if isinstance(candidate, Candidate) or not candidate.encryption(task).has_data_set_key:
        return None
    return SHARED_KEY


def is_scheme(candidate: AnyCandidate) -> bool:
    """Whether it is a scheme of InstaHide, or an encoder that is one; these have ceilings."""
    if isinstance(candidate, Candidate):
        return True
    return isinstance(candidate.encryption("single-label"), Scheme)

"""Images of a run that are held out to calibrate the probabilities of its network."""

from __future__ import annotations

import numpy as np

from instahide.data import ImageTable
from instahide.data.group_counts import strata_of
from instahide.data.image_source import has_repeats
from instahide.data.labels import strata
from instahide.data.splits import grouped_split, stratified_split
from instahide.errors import DataError, InstaHideError
from instahide.training.settings import TrainSettings

#: By default: share of the images, and their largest and least number. Two numbers are fitted, to
#: all findings of these images. With fewer images their loss for the training would matter more.
SHARE, MOST, LEAST = 0.1, 1_000, 50
#: By default, least number of groups, such as patients.
LEAST_GROUPS = 20


def hold_out(settings: TrainSettings, images: ImageTable) -> tuple[ImageTable, ImageTable]:
    """The images to train on, and those that are held out; the same ones every time.

    Groups stay together. Both keep the normalization of all images.

    Args:
        settings: settings of the run.
        images: all private training images.

    Raises:
        InstaHideError: the settings ask for images to be held out, and these are too few, of one
            group, or have measured values; or the scheme has noise, whose guarantee would not cover
            what is fitted to them.
    """
    stated = settings.calibration_share
    if stated:
        _require_calibratable(settings, images)
        return _parts(images, stated)
    share = min(SHARE, MOST / max(1, len(images)))
    none = images.subset(slice(0, 0))
    if settings.encoder is not None:
        return images, none
    scheme = settings.encryption(images.task)
    wanted = stated is None and images.task == "multi-label" and scheme.k > 1 and not scheme.noise
    if not wanted or share * len(images) < LEAST or _groups(images) < LEAST_GROUPS:
        return images, none
    try:
        return _parts(images, share)
    except DataError:
        # Groups that cannot be divided.
        return images, none


def _parts(images: ImageTable, share: float) -> tuple[ImageTable, ImageTable]:
    groups = images.group_ids
    if groups is None and has_repeats(images):
        # A picture that is there twice must not be learned and held out at once.
        groups = np.unique(images.content_ids, return_inverse=True)[1]
    if groups is None:
        kept, held = stratified_split(strata(images.labels), share)
    else:
        kept, held = grouped_split(strata_of(images.labels), groups, share)
    return images.subset(kept), images.subset(held)


def _groups(images: ImageTable) -> int:
    return len(images) if images.group_ids is None else len(np.unique(images.group_ids))


def _require_calibratable(settings: TrainSettings, images: ImageTable) -> None:
    if images.task == "regression":
        raise InstaHideError(
            "Measured values have no probabilities to calibrate.", "Leave out `calibration_share`."
        )
    if (settings.calibration_share or 0) * len(images) < LEAST:
        raise InstaHideError(
            f"Fewer than {LEAST} of the {len(images)} images would be held out, too few to "
            "calibrate with.",
            "Raise `calibration_share`, or set it to 0.",
        )
    if settings.noise:
        raise InstaHideError(
            "With noise, the guarantee would not cover what is fitted to images without noise.",
            "Set `calibration_share=0`, and calibrate the network afterwards with images that need "
            "no guarantee: `instahide calibrate`.",
        )

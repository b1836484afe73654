"""The learning rate of every step."""

from __future__ import annotations

import math

from instahide.training.settings import TrainSettings

#: Share of a one-cycle run in which the learning rate rises, and where it starts.
WARM_UP, FIRST_RATE = 0.2, 0.04


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``steps``.

    one-cycle: linear rise, cosine decay (Smith and Topin, "Super-Convergence", 2017).
    step: divided by 10 after a half and by 100 after three quarters (He et al., 2015).
    """
    done = min(step / steps, 1.0)
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * (1 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    if done < WARM_UP:
        return settings.lr * (FIRST_RATE + (1 - FIRST_RATE) * done / WARM_UP)
    return settings.lr * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2

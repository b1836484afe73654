"""JAX and Keras, in a process of their own: JAX warns of every fork after it was imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integrations.matrix import COUNT, check, encoded

ROOT = Path(__file__).resolve().parents[2]


def jax_rows() -> None:
    import jax

    def batches() -> Any:
        for images, labels in encoded():
            yield np.array(jax.numpy.asarray(images.numpy())), np.array(labels.numpy())

    check("JAX", "`.numpy()` of every batch", batches)


def keras_rows() -> None:
    import keras

    seen: list[Any] = []

    class Model(keras.Sequential):  # type: ignore[misc]
        def train_step(self, *arguments: Any) -> Any:
            seen.append(tuple(map(np.array, arguments[-1][:2])))
            return super().train_step(*arguments)

    def fit(data: Any) -> list[Any]:
        seen.clear()
        model = Model([keras.layers.Flatten(), keras.layers.Dense(COUNT)])
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, run_eagerly=True, jit_compile=False)
        model.fit(data, verbose=0)
        return seen

    def generator() -> Any:
        for images, labels in encoded():
            yield images.numpy(), labels.numpy()

    check("Keras", "a generator given to `fit`", lambda: fit(generator()))
    refusal = (ValueError, "Unrecognized data type")
    check("Keras", "a wrapped loader given to `fit`", lambda: fit(encoded()), refusal)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["jax", "keras"])
def test_batches_of_arrays_are_encodings(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    result = subprocess.run(
        [sys.executable, "-m", "tests.integrations.test_arrays", library],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    {"jax": jax_rows, "keras": keras_rows}[sys.argv[1]]()

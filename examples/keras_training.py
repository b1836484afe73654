"""Train a Keras model on encodings from a generator, here with the JAX backend.

    KERAS_BACKEND=jax python examples/keras_training.py

Each pass over the loader is an epoch under new keys. The generator repeats the loader without end,
and `steps_per_epoch` tells Keras where an epoch ends. The last line of output is a JSON object.
"""

import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from instahide import EncodedLoader, Encoder, Scheme, open_split

EPOCHS = 10


def channels_last(images: NDArray[Any]) -> NDArray[Any]:
    return images.transpose(0, 2, 3, 1)


def batches(loader: EncodedLoader) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    while True:
        for encodings, soft_labels in loader:
            yield channels_last(encodings.numpy()), soft_labels.numpy()


split = open_split("digits")
loader = EncodedLoader(Encoder(Scheme.inside(k=2), split.train), batch_size=64)
model = keras.Sequential(
    [
        keras.Input(channels_last(split.test.normalized()).shape[1:]),
        # The signs are random, so only the absolute value carries information.
        keras.layers.Lambda(keras.ops.absolute),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(len(split.train.classes)),
    ]
)
model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
model.fit(batches(loader), steps_per_epoch=len(loader), epochs=EPOCHS, shuffle=False, verbose=0)

answers = np.argmax(model.predict(channels_last(split.test.normalized()), verbose=0), axis=1)
print(json.dumps({"accuracy": float((answers == split.test.labels).mean())}))

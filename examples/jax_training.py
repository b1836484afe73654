"""Train a JAX model on encodings.

    python examples/jax_training.py

A loader gives encodings and soft labels as CPU tensors. `.numpy()` gives arrays that share their
memory, and JAX accepts these. The last line of output is a JSON object.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from instahide import EncodedLoader, Encoder, Scheme, open_split

EPOCHS, WIDTH, RATE = 30, 256, 0.4


def start(key: jax.Array, inputs: int, classes: int) -> dict[str, jax.Array]:
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (inputs, WIDTH)) * (2 / inputs) ** 0.5,
        "bias": jnp.zeros(WIDTH),
        "out": jax.random.normal(second, (WIDTH, classes)) * (2 / WIDTH) ** 0.5,
    }


def logits(weights: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    # The signs are random, so only the absolute value carries information.
    values = jnp.abs(images).reshape(len(images), -1)
    return jax.nn.relu(values @ weights["in"] + weights["bias"]) @ weights["out"]


def loss(weights: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    return -(labels * jax.nn.log_softmax(logits(weights, images))).sum(1).mean()


@jax.jit
def step(
    weights: dict[str, jax.Array], images: jax.Array, labels: jax.Array
) -> dict[str, jax.Array]:
    gradients = jax.grad(loss)(weights, images, labels)
    return jax.tree.map(lambda value, gradient: value - RATE * gradient, weights, gradients)


split = open_split("digits")
loader = EncodedLoader(Encoder(Scheme.inside(k=2), split.train), batch_size=64, drop_last=True)
weights = start(jax.random.key(0), 64, len(split.train.classes))
for _ in range(EPOCHS):
    for encodings, soft_labels in loader:
        weights = step(weights, encodings.numpy(), soft_labels.numpy())

answers = np.asarray(logits(weights, jnp.asarray(split.test.normalized()))).argmax(1)
print(json.dumps({"accuracy": float((answers == split.test.labels).mean())}))

"""A GAN learns eight clusters in the plane; `max_weight` bounds the weights of its critic.

The score is 1 minus the energy distance of generated and real points, as a share of the distance
of a generator that always returns the origin.

Reference: Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", arXiv 1701.07875. Here both
networks learn in the same step from one loss, whose gradient is reversed between them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers

from benchmarks.tasks.task import Data, Task

TRAINED_ON, HELD_OUT = 16_384, 512
NOISE, WIDTH, CLUSTERS = 2, 64, 8


def make() -> Task:
    inputs, held_out = _noise_and_points(TRAINED_ON, 0), _noise_and_points(HELD_OUT, 1)
    return Task(
        title="GAN with a bounded critic, points of eight clusters",
        # The points are inputs, because the critic reads them.
        data=Data(inputs, inputs[:, NOISE:], held_out, held_out[:, NOISE:]),
        make_model=make_model,
        loss=_wasserstein,
        metric="accuracy",
        failure=0.2,
        batch_size=64,
        steps=1500,
        good_rates={"sgd": 0.01, "adam": 0.0001, "lion": 0.00003},
        measure=_score,
        limits={"max_weight": {".*critic.*": 0.03}},
    )


def _noise_and_points(count: int, seed: int) -> np.ndarray:
    """Return rows of noise for the generator and a real point."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(count, NOISE))
    angles = 2.0 * np.pi * generator.integers(0, CLUSTERS, size=count) / CLUSTERS
    centers = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = 2.0 * centers + 0.1 * generator.normal(size=(count, 2))
    return np.concatenate([noise, points], axis=1).astype("float32")


class _Reversal(keras.layers.Layer):
    """Pass points on, and their gradient with the opposite sign: the generator opposes."""

    def call(self, points: Any) -> Any:
        return 2.0 * jax.lax.stop_gradient(points) - points


def make_model() -> Any:
    """Return a model whose outputs are two values of the critic and the generated point."""
    both = keras.Input((NOISE + 2,))
    generated = _network("generator", 2)(both[:, :NOISE])
    critic = _network("critic", 1)
    values = [critic(_Reversal()(generated)), critic(both[:, NOISE:])]
    return keras.Model(both, layers.Concatenate()([*values, generated]))


def _network(name: str, outputs: int) -> Any:
    hidden = [layers.Dense(WIDTH, activation="leaky_relu") for _ in range(2)]
    return keras.Sequential([*hidden, layers.Dense(outputs)], name=name)


def _wasserstein(targets: Any, outputs: Any) -> Any:
    """Return the critic's mean for generated points, minus that for real points."""
    del targets
    return jnp.mean(outputs[:, 0]) - jnp.mean(outputs[:, 1])


def _score(points: Any, outputs: Any) -> Any:
    distance = _energy_distance(points, outputs[:, 2:])
    return jnp.maximum(1.0 - distance / _energy_distance(points, jnp.zeros_like(points)), 0.0)


def _energy_distance(points: Any, generated: Any) -> Any:
    return (
        2.0 * _mean_distance(generated, points)
        - _mean_distance(generated, generated)
        - _mean_distance(points, points)
    )


def _mean_distance(first: Any, second: Any) -> Any:
    return jnp.mean(jnp.linalg.norm(first[:, None] - second[None], axis=-1))

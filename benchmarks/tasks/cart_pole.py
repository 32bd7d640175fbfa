"""Policy gradients balance a pole on a cart; the score is the mean share of 200 steps.

Reference: Barto, Sutton, Anderson 1983; the equations and limits are those of Gym's CartPole-v0.
"""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers

from benchmarks.tasks.task import Data, Task

STEPS, WIDTH = 200, 32
TRAINED_ON, HELD_OUT = 3200, 64
_DISCOUNT = 0.99
_GRAVITY, _CART, _POLE, _HALF_LENGTH, _FORCE, _SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_FARTHEST, _STEEPEST = 2.4, np.radians(12.0)


def make() -> Task:
    inputs, held_out = _chances(TRAINED_ON, 0), _chances(HELD_OUT, 1)
    return Task(
        title="policy gradients, pole on a cart",
        data=Data(inputs, inputs[:, 0], held_out, held_out[:, 0]),
        make_model=make_model,
        loss=_policy_loss,
        metric="accuracy",
        failure=0.2,  # a random policy balances for a tenth
        batch_size=16,
        steps=200,
        good_rates={"sgd": 0.1, "adam": 0.01, "lion": 0.001},
        measure=lambda _, outputs: jnp.mean(outputs[..., 1]),
    )


def _chances(count: int, seed: int) -> np.ndarray:
    """Return for each episode the start and the chance of each step, as uniform numbers."""
    return np.random.default_rng(seed).uniform(size=(count, 4 + STEPS)).astype("float32")


class Episodes(keras.layers.Layer):
    """Play an episode for each row of chances with a small network.

    The outputs for each step are the logarithm of the probability of the action, and whether the
    pole was still up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(WIDTH, activation="tanh")
        self.logit = layers.Dense(1)

    def policy(self, states: Any) -> Any:
        """Return for each state the logit of a push to the right."""
        return self.logit(self.hidden(states))[..., 0]

    def call(self, chances: Any) -> Any:
        states, actions, is_up = jax.lax.stop_gradient(self._play(chances))
        logits = self.policy(states)
        log_probabilities = jax.nn.log_sigmoid(jnp.where(actions, logits, -logits))
        return jnp.stack([log_probabilities, is_up.astype("float32")], axis=-1)

    def _play(self, chances: Any) -> Any:
        def step(carry: Any, chance: Any) -> Any:
            state, is_up = carry
            action = chance < jax.nn.sigmoid(self.policy(state))
            following = _moved(state, action)
            return (following, is_up & _is_upright(following)), (state, action, is_up)

        start = 0.1 * (chances[:, :4] - 0.5)
        first = (start, jnp.ones_like(start[:, 0], bool))
        _, played = jax.lax.scan(step, first, chances[:, 4:].T)
        return jax.tree.map(lambda values: jnp.swapaxes(values, 0, 1), played)


def _moved(state: Any, action: Any) -> Any:
    _, speed, angle, turning = state.T
    force = jnp.where(action, _FORCE, -_FORCE)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    total = _CART + _POLE
    common = (force + _POLE * _HALF_LENGTH * turning**2 * sine) / total
    resistance = _HALF_LENGTH * (4.0 / 3.0 - _POLE * cosine**2 / total)
    turn = (_GRAVITY * sine - cosine * common) / resistance
    push = common - _POLE * _HALF_LENGTH * turn * cosine / total
    change = jnp.stack([speed, push, turning, turn], axis=1)
    # A fallen pole would leave the range of numbers.
    return jnp.clip(state + _SECONDS * change, -10.0, 10.0)


def _is_upright(state: Any) -> Any:
    return (jnp.abs(state[:, 0]) < _FARTHEST) & (jnp.abs(state[:, 2]) < _STEEPEST)


def _policy_loss(targets: Any, outputs: Any) -> Any:
    """Return minus the mean of advantage times log-probability, over the steps played."""
    del targets
    log_probabilities, is_up = outputs[..., 0], jax.lax.stop_gradient(outputs[..., 1])

    def earlier(later: Any, reward: Any) -> Any:
        total = reward + _DISCOUNT * later
        return total, total

    _, returns = jax.lax.scan(earlier, jnp.zeros_like(is_up[:, 0]), is_up.T, reverse=True)
    played = jnp.sum(is_up)
    advantages = (returns.T - jnp.sum(returns.T * is_up) / played) * is_up
    scale = jnp.sqrt(jnp.sum(advantages**2) / played) + 1e-6
    return -jnp.sum(advantages / scale * log_probabilities) / played


def make_model() -> Any:
    chances = keras.Input((4 + STEPS,))
    return keras.Model(chances, Episodes()(chances))

"""Training steps on JAX: each is one program that includes the clip."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import optax

from keras_clip import ClippedOptimizer

PEER = "optax.clip_by_global_norm"


def device_name() -> str:
    return str(jax.devices()[0].device_kind)


def put(batch: Any) -> Any:
    return jax.device_put(batch)


def wait(values: Any) -> None:
    jax.block_until_ready(values)


class Steps:
    """One training state, which every step moves on.

    Args:
        model: the model to train.
        example: a batch.
        optimizers: for each program a function that makes its optimizer, and whether the peer
            clips the gradients before.
    """

    def __init__(
        self, model: Any, example: Any, optimizers: dict[str, tuple[Callable[[], Any], bool]]
    ) -> None:
        self.model = model
        self.weights = [jnp.array(v.value) for v in model.trainable_variables]
        self.optimizers: dict[str, Any] = {}
        lowered = {}
        for name, (make, by_peer) in optimizers.items():
            self.optimizers[name] = make()
            self.optimizers[name].build(model.trainable_variables)
            step = jax.jit(partial(self._step, self.optimizers[name], by_peer), donate_argnums=0)
            carry = (self.weights, self._state(name))
            lowered[name] = step.lower(carry, jnp.float32(1.0), *example)
        with ThreadPoolExecutor(8) as pool:
            compiled = pool.map(lambda program: program.compile(), lowered.values())
            self.programs = dict(zip(lowered, compiled, strict=True))

    def _step(
        self, optimizer: Any, by_peer: bool, carry: Any, limit: Any, inputs: Any, targets: Any
    ) -> Any:
        weights, state = carry
        loss, gradients = jax.value_and_grad(self._loss)(weights, inputs, targets)
        if by_peer:
            gradients, _ = optax.clip_by_global_norm(limit).update(gradients, optax.EmptyState())
        return optimizer.stateless_apply(state, gradients, weights), loss

    def _loss(self, weights: Any, inputs: Any, targets: Any) -> Any:
        fixed = [v.value for v in self.model.non_trainable_variables]
        logits, _ = self.model.stateless_call(weights, fixed, inputs)
        return _cross_entropy(targets, logits)

    def _state(self, name: str) -> list[Any]:
        # Copies, because a step consumes its state.
        return [jnp.array(v.value) for v in self.optimizers[name].variables]

    def make(self, name: str, limit: float) -> Callable[[Any], Any]:
        """Return a function of a batch that runs the program and returns the loss."""
        optimizer, program = self.optimizers[name], self.programs[name]
        if isinstance(optimizer, ClippedOptimizer) and optimizer.max_update_ratio is None:
            optimizer.max_norm = limit
        state, threshold = self._state(name), jnp.float32(limit)

        def step(batch: Any) -> Any:
            nonlocal state
            (self.weights, state), loss = program((self.weights, state), threshold, *batch)
            return loss

        return step


_cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

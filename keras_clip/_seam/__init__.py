"""The one door to private Keras names and to the frameworks.

No other module of keras_clip says `tensorflow`, `jax`, `torch` or a private Keras name.
`backend` is the module of the backend that Keras runs on; the others are never imported.
Each offers the same functions:

- `as_gradient(value)`: a gradient of the backend, dense or sparse, of what the user gave.
- `norm_operand(gradient)`: the dense tensor whose norm counts for a gradient.
- `global_norm(operands, dtype)`: the norm over all operands, for any magnitude.
- `norms(operands, dtype)`: the norm of each operand by itself, as one vector.
- `scale_to_norm(gradients, norm, max_norm, overwritable)`: the clip, given the norm. If
  `overwritable` are the variables, not an empty list, torch may scale their `.grad` in place.
- `scale_each_to_norm(gradients, norms, limits, overwritable)`: the clip of each gradient by
  itself.
- `is_sparse(gradient)`: whether it stores some rows or entries only.
- `values(gradient)`: the tensor itself, or what a sparse gradient stores.
- `map_values(gradient, function)`: the gradient with a function of its values in their place.
- `row_totals(gradient)`: for each stored row of a sparse gradient, the sum of all stored rows
  of that index, and the indices.
- `compiled(function, static)`: the function, compiled where that leaves decisions inside it on
  the device; the arguments in the positions `static` are no tensors.
- `choose(predicate, quick, general)`: the result of `quick()` where the scalar `predicate` is
  true, else of `general()`; the latter has to be right, if slower, in both cases.
- `is_known_to_hold(condition)`: whether a scalar is true and the host knows without waiting.
- `clamp(variables, bounds)`: assigns to each variable its value, cut off at a scalar
  bound and its negative; what is within stays bit for bit, as if there were no bound.
- `write_row(variable, index, row)`: assigns a row of a variable, and no more than that row where
  the backend can.
- `stack(scalars)`: scalars of one type as one vector, quickly.
- `where(condition, one, other)`: as `keras.ops.where`, for tensors of one dtype, without what
  Keras checks first, which on torch takes ten times as long as to choose.
- `count_up(variable)`: adds 1 to a scalar integer variable.
- `all_reduce(original, gradients, variables)`: the gradients, summed over replicas.
- `replicas()`: how many replicas the strategy in use has.
- `on_every_replica(flag)`: whether a scalar boolean is true on every replica.
- `decides_across_replicas()`: whether here an update may be in a branch only where the branch
  is taken for all replicas together.
- `run_unless(condition, body, otherwise, arguments, variables)`: runs `body(*arguments)` or,
  where the condition, a scalar, is true, `otherwise(*arguments)`; both may change `variables`
  only.
- `raise_where(fatal, error, names, flags, may_wait)`: raises `error` of the names that are
  flagged where the scalar `fatal` is true; returns False if that cannot be done from here or,
  in a graph, `may_wait`.
- `on_every_device(rank)`: arguments for a new variable, so that no pattern which a user's
  distribution has for the variables of layers splits it.
- `scope_of(variable)`: a context in which new variables are distributed as `variable` is.
- `no_gradients()`: a context in which operations are not recorded for differentiation.
- `asynchronous_strategy()`, on TensorFlow only: the name of the current strategy if its workers
  do not wait for each other, or None.
- `UPDATES_ON_MICRO_STEPS`: whether Keras runs the update on every micro-batch of a
  gradient accumulation and then takes back what it did to its own variables.
"""

from types import ModuleType

import keras


def _backend_module() -> ModuleType:
    name = keras.config.backend()
    if name == "tensorflow":
        from keras_clip._seam import tensorflow_backend

        return tensorflow_backend
    if name == "jax":
        from keras_clip._seam import jax_backend

        return jax_backend
    if name == "torch":
        from keras_clip._seam import torch_backend

        return torch_backend
    raise ImportError(
        f"keras_clip cannot clip on the Keras backend {name!r}, which does not train. "
        "It works on 'tensorflow', 'jax' and 'torch'. Set the environment variable "
        "KERAS_BACKEND to one of them before Python starts."
    )


backend = _backend_module()

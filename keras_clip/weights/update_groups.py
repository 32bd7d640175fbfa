"""The limit of the change of all trained variables in one update."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.norms import floating_point
from keras_clip.norms.global_norm import norm_of_change, norm_of_tensors, norms_of_tensors
from keras_clip.types import FactorPair, Tensor, Variable
from keras_clip.weights.threshold_groups import ThresholdGroups
from keras_clip.weights.update_clipping import UpdateClipping


class MeasuredUpdate(NamedTuple):
    """The change of all variables together in one update.

    Attributes:
        ratio: scalar tensor, norm of the change divided by norm of the weights, before the limit.
        scale: scalar tensor, norm of the change after the limit divided by norm before.
    """

    ratio: Tensor
    scale: Tensor


class UpdateGroups(ThresholdGroups):
    """The limits of `max_update_ratio`; see `ThresholdGroups`."""

    def __init__(self, max_update_ratio: Any) -> None:
        super().__init__("max_update_ratio", UpdateClipping, max_update_ratio)
        self._limited: list[Variable] = []
        self._groups: list[_Group] = []

    def build(self, variables: Sequence[Variable], dtype: str) -> None:
        """Create the variables of the thresholds and find the members of each group."""
        super().build(variables, dtype)
        self._limited, self._groups = [], []
        for key, rule in self.rules.items():
            positions = self.members(key, variables) if rule is not None else []
            if not positions:
                continue
            own = [variables[position] for position in positions]
            start = len(self._limited)
            self._groups.append(_Group(rule, slice(start, start + len(own)), own, dtype))
            self._limited += own

    def values(self) -> list[Tensor]:
        """Return the current values of the limited variables, for `limit`."""
        return backend.values_to_keep(self._limited)

    def limit(self, before: list[Tensor], step: Tensor) -> MeasuredUpdate:
        """Move the variables back towards their values `before`, until the limits hold."""
        now = backend.tensors(self._limited)
        parts = [group.part(now[group.members], before[group.members]) for group in self._groups]
        limits = [self.threshold(group.rule, step) for group in self._groups]
        factors = [part.factors(limit) for part, limit in zip(parts, limits, strict=True)]
        spread = [group.spread(own) for group, own in zip(self._groups, factors, strict=True)]
        backend.shrink_changes(self._limited, before, list(chain.from_iterable(spread)))
        return _measured(parts, [coarse * fine for coarse, fine in factors])


class _Part(NamedTuple):
    """Norms of the changes of a group and of its weights: scalars, or vectors of one a variable."""

    change: Tensor
    weights: Tensor

    def factors(self, ratio: Tensor) -> FactorPair:
        """Return two factors whose product makes the change as long as the limit.

        Processors may flush the product to zero, where each factor by itself is ordinary.
        """
        limit = ratio * self.weights
        # A NaN compares as false, and an infinite change stays visible.
        exceeds = ops.logical_and(self.change > limit, ops.isfinite(self.change))
        one = ops.ones_like(self.change)
        small = math.sqrt(
            floating_point.shrinking_factor(keras.backend.standardize_dtype(self.change.dtype))
        )
        is_far_above = ops.logical_and(exceeds, self.change * small > limit)
        coarse = ops.where(is_far_above, one * small, one)
        fine = limit / ops.where(exceeds, self.change * coarse, one)
        return coarse, ops.where(exceeds, fine, one)


class _Group:
    """Variables with one rule.

    Args:
        rule: the `UpdateClipping`.
        members: their positions among all limited variables.
        variables: the variables.
        dtype: of norms.
    """

    def __init__(
        self, rule: UpdateClipping, members: slice, variables: Sequence[Variable], dtype: str
    ) -> None:
        self.rule = rule
        self.members = members
        self._count = len(variables)
        self._dtype = dtype
        sizes = np.array([math.prod(variable.shape) for variable in variables], "float64")
        if not rule.per_variable:
            sizes = np.sum(sizes)
        self._smallest = np.asarray(rule.minimum_rms * np.sqrt(sizes), dtype)

    def part(self, now: list[Tensor], before: list[Tensor]) -> _Part:
        if self.rule.per_variable:
            change = norms_of_tensors(floating_point.differences(now, before))
            weights = norms_of_tensors(before)
        else:
            change, weights = norm_of_change(now, before), norm_of_tensors(before)
        change, weights = ops.cast(change, self._dtype), ops.cast(weights, self._dtype)
        return _Part(change, ops.maximum(weights, backend.constant(self._smallest, weights)))

    def spread(self, factors: FactorPair) -> list[FactorPair]:
        """Return the factors of each variable."""
        if not self.rule.per_variable:
            return [factors] * self._count
        return list(zip(*map(ops.unstack, factors), strict=True))


def _measured(parts: Sequence[_Part], factors: Sequence[Tensor]) -> MeasuredUpdate:
    change = _root_of_squares(*(part.change for part in parts))
    weights = _root_of_squares(*(part.weights for part in parts))
    limited = _root_of_squares(*(p.change * f for p, f in zip(parts, factors, strict=True)))
    one = ops.ones_like(change)
    divisor = ops.where(weights > 0, weights, one)
    has_moved = ops.logical_and(change > 0, ops.isfinite(change))
    scale = ops.where(has_moved, limited / ops.where(has_moved, change, one), one)
    return MeasuredUpdate(change / divisor, scale)


def _root_of_squares(*norms: Tensor) -> Tensor:
    if len(norms) == 1 and len(norms[0].shape) == 0:
        return norms[0]
    return floating_point.rescaled_norm([ops.reshape(norm, (-1,)) for norm in norms])

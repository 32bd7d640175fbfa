"""Run a configuration in the product and in the emulation, and compare each call."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from tests.configurations.configuration import Configuration, gradients, loss
from tests.configurations.emulation import combined
from tests.configurations.emulation.changes import Range
from tests.configurations.emulation.numbers import SMALLEST_NORMAL
from tests.configurations.emulation.optimizer import EmulatedOptimizer
from tests.configurations.product import Product

# A norm of eleven entries has at most fifteen roundings of 2**-24, with those of the average.
NORMS = 1e-6

# Moving means and deviations sum differences of such norms, one at each update.
ADAPTIVE = 1e-5

# CPUs may flush a number below this to zero, and also each factor of a product.
_FLUSHED = 100 * SMALLEST_NORMAL


def check(configuration: Configuration, folder: Path) -> None:
    """Fail if any readable state differs after any call."""
    product = Product(configuration, folder)
    emulated = EmulatedOptimizer(configuration, keras.config.backend())
    for call in range(len(configuration.batches)):
        where = f"call {call} ({configuration.batches[call]})"
        if configuration.resume is not None and configuration.resume[0] == call:
            product.resume()
            _compare(product, emulated, f"{where}, loaded")
        for assignment in configuration.assignments:
            if assignment.call == call:
                product.assign(assignment)
                emulated.assign(assignment)
        given = gradients(configuration, call), loss(configuration, call)
        actual, expected = product.apply(*given), emulated.apply(*given)
        _compare_outcomes(actual, expected, where)
        _compare(product, emulated, where)


def _compare_outcomes(actual: object, expected: object, where: str) -> None:
    error = getattr(actual, "error", None), getattr(expected, "error", None)
    assert error[0] == error[1], f"{where}: raised {error[0]}, not {error[1]}"
    names = getattr(expected, "names", None)
    if names is not None:
        raised = getattr(actual, "names", None)
        assert raised == names, f"{where}: names {raised}, not {names}"


def _compare(product: Product, emulated: EmulatedOptimizer, where: str) -> None:
    _compare_counters(product, emulated, where)
    _compare_records(product, emulated, where)
    weights = emulated.weights
    triples = zip(product.variables, weights.values, weights.errors, strict=True)
    for variable, expected, error in triples:
        _assert_within(variable.numpy(), expected, error, f"{where}: {variable.path}")


def _assert_within(actual: np.ndarray, expected: np.ndarray, error: np.ndarray, what: str) -> None:
    """Compare each entry within its own error; NaN and infinity are in the same places."""
    finite = np.isfinite(expected)
    allowed = np.where(finite, np.nan_to_num(error, nan=0.0, posinf=0.0), 0.0) + _FLUSHED
    difference = np.where(finite, np.float64(actual) - np.where(finite, expected, 0.0), 0.0)
    is_same = np.where(finite, np.abs(difference) <= allowed, (actual == expected))
    is_same |= np.isnan(actual) & np.isnan(expected)
    assert np.all(is_same), f"{what}: {actual} for {expected}, allowed {allowed}"


def _compare_counters(product: Product, emulated: EmulatedOptimizer, where: str) -> None:
    optimizer, skipping = product.optimizer, emulated.skipping
    actual = {
        "iterations": int(np.array(keras.ops.convert_to_numpy(optimizer.iterations))),
        "skipped_steps": int(optimizer.skipped_steps.numpy()),
        "zeroed_steps": int(optimizer.zeroed_steps.numpy()),
    }
    expected = {
        "iterations": emulated.iterations,
        "skipped_steps": skipping.skipped_steps,
        "zeroed_steps": skipping.zeroed_steps,
    }
    assert actual == expected, f"{where}: {actual}, not {expected}"
    norm = float(optimizer.grad_norm.numpy())
    np.testing.assert_allclose(norm, emulated.grad_norm, NORMS, err_msg=f"{where}: grad_norm")
    counted = [own[:2] for own in product.observed()]
    wanted = [own[:2] for own in combined.observed(emulated.clipper)]
    assert counted == wanted, f"{where}: ObserveOnly counted {counted}, not {wanted}"


def _compare_ratios(
    record: Mapping[str, np.ndarray], rows: list[tuple[Range, Range]], where: str
) -> None:
    for name, position in (("update_ratio", 0), ("update_scale", 1)):
        wanted = [row[position] for row in rows]
        assert len(record[name]) == len(wanted), f"{where}: {name}"
        for actual, expected in zip(record[name].tolist(), wanted, strict=True):
            low = expected.low * (1 - ADAPTIVE) - _FLUSHED
            high = expected.high * (1 + ADAPTIVE) + _FLUSHED
            both_nan = np.isnan(actual) and np.isnan(expected.value)
            is_within = low <= actual <= high or actual == expected.value
            assert both_nan or is_within, f"{where}: {name} {actual}, not {expected}"


def _compare_records(product: Product, emulated: EmulatedOptimizer, where: str) -> None:
    record = product.optimizer.history
    size = emulated.configuration.history_size
    first = max(0, len(emulated.rows) - size)
    rows = emulated.rows[first:] if size else []
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0)] * 4
    steps = np.arange(first, len(emulated.rows)) if size else np.arange(0)
    np.testing.assert_array_equal(record["step"], steps, err_msg=f"{where}: step")
    np.testing.assert_array_equal(record["skipped"], columns[3], err_msg=f"{where}: skipped")
    if emulated.max_update_ratio is None:
        assert "update_ratio" not in record, where
    elif size:
        _compare_ratios(record, emulated.ratios[first:], where)
    tolerances = {"grad_norm": NORMS, "clip_threshold": ADAPTIVE, "clip_scale": ADAPTIVE}
    for (name, rtol), expected in zip(tolerances.items(), columns, strict=False):
        # A flushed norm, divided by the norm before, is below this.
        below = _FLUSHED if name != "clip_scale" else 1e-6
        np.testing.assert_allclose(
            record[name], expected, rtol, atol=below * 1e-2, err_msg=f"{where}: {name}"
        )

"""`save_batch`: the batches that a rollback or an error suspects are written to files."""

import logging

import keras
import numpy as np
import pytest

from keras_clip import (
    BatchKeeper,
    ClippedOptimizer,
    NonFiniteGradientError,
    RaiseOnNonFinite,
    RollBack,
)
from tests.recovery.test_roll_back import batches, make_model


def pairs(count, bad=()):
    inputs, targets = batches(count, bad=bad)
    return list(zip(inputs, targets, strict=True))


def fit(model, stream, steps, callbacks):
    arguments = {"steps_per_epoch": steps, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(stream, callbacks=callbacks, **arguments)


def assert_holds(path, batch):
    with np.load(path) as saved:
        assert sorted(saved) == ["0", "1"]
        for name, array in zip(("0", "1"), batch, strict=True):
            np.testing.assert_array_equal(saved[name], array)


def test_a_rollback_saves_the_first_bad_check_and_the_batch_before(tmp_path):
    """Checked every two batches; the fourth batch of the second epoch of six is bad."""
    data = pairs(12, bad=[9])
    keeper = BatchKeeper(tmp_path / "bad")
    roll_back = RollBack(every=2, check_every=2, patience=1, save_batch=keeper)
    fit(make_model(), keeper(iter(data)), 6, [roll_back])
    (event,) = roll_back.events
    assert (event["epoch"], event["batch"]) == (1, 2)
    assert [path.name for path in event["files"]] == [f"batch_{n}.npz" for n in (7, 8, 9)]
    for number, path in zip((7, 8, 9), event["files"], strict=True):
        assert_holds(path, data[number])
    assert sorted((tmp_path / "bad").iterdir()) == sorted(event["files"])


def test_an_error_saves_its_batch(tmp_path):
    data = pairs(6, bad=[4])
    keeper = BatchKeeper(tmp_path)
    model = make_model(ClippedOptimizer("sgd", nonfinite="raise"))
    callbacks = [RaiseOnNonFinite(save_batch=keeper)]
    with pytest.raises(NonFiniteGradientError) as caught:
        fit(model, keeper(data), 3, callbacks)
    path = tmp_path / "batch_4.npz"
    assert caught.value.__notes__ == ["Epoch 1, batch 1, counted from 0.", f"Saved: {path}"]
    assert_holds(path, data[4])


def test_in_a_loop(tmp_path):
    keeper = BatchKeeper(tmp_path)
    model = make_model()
    model.optimizer.build(model.trainable_variables)
    roll_back = RollBack(every=1, check_every=1, patience=1, save_batch=keeper)
    roll_back.start(model)
    for number, batch in zip(range(10), keeper(pairs(4)), strict=False):
        del batch
        roll_back.after_batch(np.nan if number == 6 else 1.0)
    assert [path.name for path in roll_back.events[0]["files"]] == ["batch_5.npz", "batch_6.npz"]
    assert_holds(tmp_path / "batch_6.npz", pairs(4)[2])


def test_a_batch_of_any_structure(tmp_path):
    batch = ({"a": np.ones(2), "b": keras.ops.ones(3)}, np.zeros(1), None)
    keeper = BatchKeeper(tmp_path)
    assert list(keeper(iter([batch]))) == [batch]
    (path,) = keeper.save(0, 5)
    with np.load(path) as saved:
        found = {name: saved[name].tolist() for name in saved}
    assert found == {"0/a": [1.0, 1.0], "0/b": [1.0, 1.0, 1.0], "1": [0.0]}


def test_batches_that_are_no_longer_kept(tmp_path, caplog):
    keeper = BatchKeeper(tmp_path, keep=2)
    list(keeper(iter([(np.ones(1),)] * 4)))
    with caplog.at_level(logging.WARNING, logger="keras_clip"):
        assert [path.name for path in keeper.save(-1, 9)] == ["batch_2.npz", "batch_3.npz"]
    assert [record.args for record in caplog.records] == [(0, 2), (1, 2)]


def test_a_batch_that_is_a_dict_is_the_inputs(tmp_path):
    """NumPy's `savez` has an argument `file` of its own."""
    keeper = BatchKeeper(tmp_path)
    next(keeper([{"file": np.ones(2), "other": np.zeros(3)}]))
    (path,) = keeper.save(0, 1)
    assert sorted(np.load(path).files) == ["0/file", "0/other"]


def test_a_keeper_serves_one_fit(tmp_path):
    keeper = BatchKeeper(tmp_path)
    for _ in range(2):
        next(keeper(pairs(2)))
    with pytest.raises(ValueError, match="used in an earlier fit"):
        keeper.begin_fit(object())


def test_data_that_comes_again_and_data_that_ends():
    keeper = BatchKeeper("unused")
    stream = keeper([1, 2])
    assert [next(stream) for _ in range(5)] == [1, 2, 1, 2, 1]
    assert list(keeper(iter([1, 2]))) == [1, 2]
    assert list(keeper([])) == []


@pytest.mark.parametrize("make", [RaiseOnNonFinite, RollBack])
def test_errors_at_the_start(make, tmp_path):
    with pytest.raises(TypeError, match=r"save_batch must be a keras_clip.BatchKeeper.*'dir'"):
        make(save_batch="dir")
    keeper = BatchKeeper(tmp_path)
    callback, other = make(save_batch=keeper), make(save_batch=keeper)
    with pytest.raises(ValueError, match=r"fit\(keeper\(batches\)"):
        callback.on_train_begin()
    next(keeper([1]))
    keeper.begin_fit(callback)
    keeper.begin_fit(other)
    with pytest.raises(ValueError, match="was used in an earlier fit"):
        keeper.begin_fit(callback)


@pytest.mark.parametrize(("keep", "error"), [(0, ValueError), (1.5, TypeError)])
def test_bad_arguments(keep, error):
    with pytest.raises(error, match="keep must be an int"):
        BatchKeeper("unused", keep=keep)

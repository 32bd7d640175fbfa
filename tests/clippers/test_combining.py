"""Chains, groups, observers, and clippers by name."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import (
    Chain,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    ClippedOptimizer,
    ClipperMap,
    ObserveOnly,
    clippers,
)
from tests.reference import global_norm as norm_reference
from tests.reference import stateless as reference
from tests.support.gradient_stream import (
    SHAPES,
    apply_all,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import fit, make_model
from tests.support.stateful_clipper import RunningMean


def steps_taken(clipper, gradients, names=None):
    """Return the change by SGD with learning rate 1."""
    names = names or [f"v{i}" for i in range(len(gradients))]
    variables = [
        keras.Variable(np.zeros_like(g), name=name)
        for g, name in zip(gradients, names, strict=True)
    ]
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper)
    apply_all(optimizer, variables, [gradients])
    return [-value for value in values(variables)], optimizer


class TestChain:
    gradients = (np.float32([30.0, 0.1]), np.float32([[2.0, -9.0]]))

    def test_applies_one_after_another(self):
        steps, _ = steps_taken([ClipByValue(5.0), ClipByGlobalNorm(1.0)], self.gradients)
        limited = reference.clip_by_value(self.gradients, -5.0, 5.0)
        assert_close(steps, norm_reference.clip_by_global_norm(limited, 1.0))
        steps, _ = steps_taken([ClipByGlobalNorm(1.0), ClipByValue(0.1)], self.gradients)
        scaled = norm_reference.clip_by_global_norm(self.gradients, 1.0)
        assert_close(steps, reference.clip_by_value(scaled, -0.1, 0.1))

    def test_later_members_see_the_norm_of_what_is_left(self):
        second = RunningMean()
        steps_taken([ClipByGlobalNorm(1.0), second], self.gradients)
        assert float(second.mean.numpy()) == pytest.approx(0.1)

    def test_two_of_a_kind_keep_their_state_apart(self, tmp_path):
        chain = [RunningMean(0.9), ClipByGlobalNorm(1.0), RunningMean(0.8)]
        model = make_model(ClippedOptimizer("adam", clipper=chain))
        fit(model)
        means = [model.optimizer.clipper.members[i].mean for i in (0, 2)]
        assert means[0].numpy() != means[1].numpy()
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert_identical(values(loaded.optimizer.variables), values(model.optimizer.variables))

    def test_bad_input(self):
        with pytest.raises(ValueError, match="at least one clipper.*Received: clippers="):
            Chain([])
        clipper = ClipByNorm()
        with pytest.raises(ValueError, match="each instance once"):
            Chain([clipper, clipper])
        with pytest.raises(TypeError, match="takes a list of clippers. Received: clippers="):
            Chain(ClipByNorm())
        with pytest.raises(TypeError, match="Chain takes clippers.*Received: None"):
            Chain([None])


class TestClipperMap:
    names = ("encoder", "encoder_bias", "head")
    gradients = (np.float32([3.0, 0.0]), np.float32([4.0]), np.float32([[6.0], [8.0]]))

    def test_each_group_has_its_own_norm(self):
        groups = ClipperMap(ClipByGlobalNorm(5.0), {"encoder.*": ClipByGlobalNorm(1.0)})
        steps, optimizer = steps_taken(groups, self.gradients, self.names)
        assert_close(steps[:2], norm_reference.clip_by_global_norm(self.gradients[:2], 1.0))
        assert_close(steps[2:], norm_reference.clip_by_global_norm(self.gradients[2:], 5.0))
        norms = {group: float(v.numpy()) for group, v in optimizer.clipper.grad_norms.items()}
        assert norms == {"encoder.*": 5.0, "default_clipper": 10.0}
        assert float(optimizer.grad_norm.numpy()) == pytest.approx(np.sqrt(125.0))

    def test_none_leaves_a_group_unclipped(self):
        steps, _ = steps_taken(
            ClipperMap(ClipByGlobalNorm(1.0), {"head": None}), self.gradients, self.names
        )
        assert_identical(steps[2:], list(self.gradients[2:]))
        steps, _ = steps_taken(
            ClipperMap(None, {"head": ClipByGlobalNorm(1.0)}), self.gradients, self.names
        )
        assert_identical(steps[:2], list(self.gradients[:2]))
        assert norm_reference.global_norm(steps[2:]) == pytest.approx(1.0)

    def test_a_path_goes_before_patterns(self):
        groups = ClipperMap(None, {"encoder.*": None, "encoder_bias": ClipByGlobalNorm(1.0)})
        steps, _ = steps_taken(groups, self.gradients, self.names)
        np.testing.assert_allclose(steps[1], [1.0])

    def test_ambiguous_patterns(self):
        groups = ClipperMap(None, {"enc.*": ClipByNorm(), ".*bias": ClipByNorm()})
        with pytest.raises(ValueError, match="encoder_bias.*'enc\\.\\*', '\\.\\*bias'"):
            steps_taken(groups, self.gradients, self.names)

    def test_pattern_that_matches_nothing(self):
        groups = ClipperMap("clip_by_norm", {"decoder.*": None})
        with pytest.raises(ValueError, match="decoder.*paths are: .*'encoder', 'encoder_bias'"):
            steps_taken(groups, self.gradients, self.names)

    def test_bad_input(self):
        clipper = ClipByNorm()
        for make, error, message in (
            (lambda: ClipperMap(None, [("a", None)]), TypeError, "must be a dict.*Received"),
            (lambda: ClipperMap(None, {3: None}), TypeError, "variables by str.*Received: 3"),
            (lambda: ClipperMap(None, {"(": None}), ValueError, "not a regular expression"),
            (lambda: ClipperMap(3), TypeError, "clipper must be an instance.*Received"),
            (lambda: ClipperMap(clipper, {"a": clipper}), ValueError, "cannot serve two groups"),
            (
                lambda: ClippedOptimizer("sgd", clipper=ClipperMap()),
                ValueError,
                "nothing would be clipped",
            ),
        ):
            with pytest.raises(error, match=message):
                make()

    def test_groups_are_added_before_the_optimizer_is_made(self):
        groups = ClipperMap("clip_by_norm")
        groups["head"] = None
        with pytest.raises(ValueError, match="'head' has the clipper None already"):
            groups["head"] = ClipByNorm()
        ClippedOptimizer("sgd", clipper=groups)
        with pytest.raises(ValueError, match="'encoder' comes too late"):
            groups["encoder"] = None

    def test_numbers_of_a_group_may_be_assigned_and_are_saved(self, tmp_path):
        groups = ClipperMap("clip_by_global_norm", {".*hidden/.*": ClipByGlobalNorm(0.5)})
        model = make_model(ClippedOptimizer("sgd", clipper=groups))
        fit(model)
        model.optimizer.clipper[".*hidden/.*"].max_norm = 0.25
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert float(loaded.optimizer.clipper[".*hidden/.*"].max_norm.numpy()) == 0.25
        fit(model), fit(loaded)
        assert_identical(loaded.get_weights(), model.get_weights())

    @pytest.mark.filterwarnings("ignore:Gradients do not exist")
    def test_a_group_without_gradients_in_a_step(self):
        """A loop may train one part of a model at a time."""
        variables = make_variables()
        groups = ClipperMap(RunningMean(), {"bias": RunningMean()})
        optimizer = ClippedOptimizer("sgd", clipper=groups)
        optimizer.build(variables)
        gradients = gradient_stream(1)[0]
        gradients[list(SHAPES).index("bias")] = None
        apply_all(optimizer, variables, [gradients])
        assert int(groups["bias"].updates.numpy()) == 0
        assert int(groups.default_clipper.updates.numpy()) == 1


class TestObserveOnly:
    def test_trains_like_the_bare_optimizer(self):
        bare = make_model(keras.optimizers.Adam(0.01))
        observer = ObserveOnly(ClipByGlobalNorm(1e-3))
        observed = make_model(ClippedOptimizer(keras.optimizers.Adam(0.01), clipper=observer))
        fit(bare), fit(observed)
        assert_identical(observed.get_weights(), bare.get_weights())
        assert int(observer.updates.numpy()) == int(observer.clipped_updates.numpy()) == 12

    def test_tells_what_would_have_happened(self):
        observer = ObserveOnly(ClipByGlobalNorm(2.0))
        variable = keras.Variable(np.float32([0.0]))
        optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=observer)
        for size, clipped, norm in ((1.0, 0, 1.0), (5.0, 1, 2.0), (2.0, 1, 2.0), (2.5, 2, 2.0)):
            apply_all(optimizer, [variable], [[np.float32([size])]])
            assert int(observer.clipped_updates.numpy()) == clipped
            assert float(observer.clipped_norm.numpy()) == norm
        assert int(observer.updates.numpy()) == 4
        assert variable.numpy()[0] == -10.5

    def test_state_of_the_clipper_moves(self):
        observer = ObserveOnly(RunningMean())
        apply_all(ClippedOptimizer("sgd", clipper=observer), make_variables(), gradient_stream(3))
        assert int(observer.clipper.updates.numpy()) == 3


class TestGet:
    @pytest.mark.parametrize("name", ["ClipByNorm", "clip_by_norm", "clipbynorm", "CLIP_BY_NORM"])
    def test_names(self, name):
        assert isinstance(clippers.get(name), ClipByNorm)
        assert isinstance(ClippedOptimizer("sgd", clipper=name).clipper, ClipByNorm)

    def test_a_registered_clipper_of_a_users_own(self):
        assert isinstance(clippers.get("tests>RunningMean"), RunningMean)

    def test_instances_and_none_come_back(self):
        clipper = ClipByNorm()
        assert clippers.get(clipper) is clipper
        assert clippers.get(None) is None

    def test_configs(self):
        config = clippers.serialize(ClipByNorm(0.5))
        before = dict(config)
        assert clippers.get(config).max_norm == 0.5
        assert config == before
        short = {"class_name": "clip_by_norm", "config": {"max_norm": 0.25}}
        assert clippers.get(short).max_norm == 0.25
        assert isinstance(clippers.get([short, "clip_by_value"]), Chain)

    def test_a_class_of_your_own_that_is_not_registered(self):
        class Unregistered(keras_clip.Clipper):
            def clip(self, update):
                return update.gradients

        config = clippers.serialize(Unregistered())
        found = clippers.deserialize(config, custom_objects={"Unregistered": Unregistered})
        assert isinstance(found, Unregistered)

    @pytest.mark.parametrize(
        ("identifier", "error", "message"),
        [
            ("clip_by_nrom", ValueError, "No clipper is named 'clip_by_nrom'.*ClipByNorm"),
            ("Dense", ValueError, "No clipper is named 'Dense'"),
            ("chain", ValueError, "Chain cannot be made from its name alone: it needs clippers"),
            (3, TypeError, "clipper must be an instance.*Received: clipper=3"),
            (ClipByNorm, TypeError, "clipper must be an instance"),
            ({"a": 1}, ValueError, "has 'class_name' and 'config'"),
        ],
        ids=str,
    )
    def test_what_is_no_clipper(self, identifier, error, message):
        with pytest.raises(error, match=message):
            clippers.get(identifier)

    def test_a_config_of_something_else(self):
        with pytest.raises(TypeError, match="must describe a keras_clip.Clipper"):
            clippers.get(keras.saving.serialize_keras_object(keras.optimizers.SGD()))

"""Steps with less memory, in parts, or left out, beside Keras' own step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rs_keras
from rs_keras.layers import switchable_norm
from rs_keras.training import step
from tests.training import steps

ONE = {"activation_memory": "one_resolution"}
SKIP = {"skip_nonfinite": True}
LOW_BIT = [
    {"bits": (2, 2), "quantizer_options": {"basis_updates": u, "activation_basis": b}}
    for u in ("once", "per_resolution")
    for b in ("shared", "private", "largest")
]


@pytest.fixture(scope="module")
def stepped(tiny):
    """A function: the model after a step, and (logs, gradients, state) of the step."""

    def run(network, **options):
        model = tiny(**{"resolutions": (48, 32), **network})
        model.compile(rs_keras.SGD(0.05), **options)
        return model, steps.taken(model, *steps.batch(model))

    return run


def _assert_same(found, expected, tolerance):
    for part, other in zip(found, expected, strict=True):
        part = {k: v for k, v in part.items() if k != "skipped_steps"}
        assert set(part) == set(other)
        for name, value in other.items():
            error = steps.difference(part[name], value)
            assert error <= tolerance, f"{name}: {error:.1e}"


class TestOneResolution:
    @pytest.mark.parametrize(
        "network",
        [
            {"resolutions": (64, 48, 32)},
            {"shared_bn": True},
            {"resolutions": (32,)},
            {"resolutions": (32,), "views": 3},
            *LOW_BIT,
            {"bits": (2, 2), "rest_bits": 8},
        ],
        ids=str,
    )
    def test_step_is_the_ordinary_one(self, stepped, network):
        _, expected = stepped(network, run_eagerly=True)
        _, found = stepped(network, run_eagerly=True, **ONE)
        _assert_same(found, expected, 1e-5)

    def test_step_is_the_ordinary_one_in_a_graph(self, stepped):
        network = {**LOW_BIT[4], "rest_bits": 8}
        _, expected = stepped(network)
        _, found = stepped(network, **ONE, **SKIP)
        _assert_same(found, expected, 1e-5)

    @pytest.mark.slow
    def test_step_is_the_ordinary_one_under_xla(self, stepped):
        _, expected = stepped({}, jit_compile=True)
        _, found = stepped({}, jit_compile=True, **ONE, **SKIP)
        _assert_same(found, expected, 1e-5)

    @pytest.mark.parametrize(
        ("name", "tolerance"),
        [("float64", 1e-10), ("mixed_bfloat16", 1e-5), ("mixed_float16", 1e-5)],
    )
    def test_step_is_the_ordinary_one_in_every_precision(
        self, stepped, policy, name, tolerance
    ):
        policy(name)
        _, expected = stepped({}, run_eagerly=True)
        _, found = stepped({}, run_eagerly=True, **ONE, **SKIP)
        _assert_same(found, expected, tolerance)

    def test_in_a_graph_no_resolution_starts_before_the_last_has_ended(self, tiny):
        # The executor runs side by side whatever does not wait for something.
        model = tiny((48, 32))
        model.compile(rs_keras.SGD(), **ONE)
        function = tf.function(lambda x, y: step.gradients(model, x, y))
        operations = function.get_concrete_function(
            *tf.nest.map_structure(tf.convert_to_tensor, steps.batch(model))
        ).graph.get_operations()
        starts = [
            op
            for op in operations
            if op.type == "Identity" and len(op.control_inputs) > 5
        ]
        assert len(starts) == 2  # 32 pixels, twice
        kinds = [_kinds_before(start) for start in starts]
        count = sum(op.type == "Conv2DBackpropFilter" for op in operations) // 2
        assert [found.count("Conv2D") for found in kinds] == [count, 2 * count]
        assert [found.count("Conv2DBackpropFilter") for found in kinds] == [0, count]


def _kinds_before(operation):
    """The types of all operations that one waits for."""
    found, new = set(), [operation]
    while new:
        op = new.pop()
        sources = {tensor.op for tensor in op.inputs} | set(op.control_inputs)
        new += sources - found
        found |= sources
    return [op.type for op in found]


class TestAccumulate:
    @pytest.mark.parametrize("network", [{}, {"bits": (2, 2), "rest_bits": 8}])
    def test_gradients_are_the_mean_of_those_of_the_parts(self, tiny, network):
        whole, single = (tiny((48, 32), **network) for _ in range(2))
        whole.compile(rs_keras.SGD(), accumulate=3, **ONE)
        single.compile(rs_keras.SGD())
        x, y = steps.batch(whole)
        loss, found = tf.function(step.gradients)(whole, x, y)
        parts = [
            step.gradients(
                single, {k: v[i : i + 2] for k, v in x.items()}, y[i : i + 2]
            )
            for i in (0, 2, 4)
        ]
        np.testing.assert_allclose(loss, np.mean([p[0] for p in parts]), rtol=1e-6)
        for n, gradient in enumerate(found):
            expected = np.mean([p[1][n] for p in parts], axis=0)
            assert steps.difference(gradient, expected) < 1e-5
        # Statistics, bases and metrics have moved with every part.
        for name in ("non_trainable_variables", "metrics_variables"):
            for v, other in zip(
                getattr(whole, name), getattr(single, name), strict=True
            ):
                assert steps.difference(v, other) < 1e-5, v.path

    def test_with_frozen_normalization_the_step_is_that_of_the_whole_batch(self, tiny):
        results = []
        for options in ({}, {"accumulate": 2}, {"accumulate": 3, **ONE, **SKIP}):
            model = tiny((48, 32))
            for layer in model._flatten_layers():
                if isinstance(layer, switchable_norm.SwitchableBatchNormalization):
                    layer.trainable = False
            model.compile(rs_keras.SGD(0.05), **options)
            results.append(steps.taken(model, *steps.batch(model)))
        for found in results[1:]:
            _assert_same(found, results[0], 1e-5)

    def test_a_batch_that_does_not_split_is_refused(self, tiny):
        model = tiny((48, 32))
        model.compile(rs_keras.SGD(), accumulate=4)
        x, y = steps.batch(model)
        rule = "`accumulate` must divide the number of images of every batch. Received"
        with pytest.raises(ValueError, match=f"{rule}: accumulate=4 and 6 images"):
            model.train_on_batch(x, y)
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        with pytest.raises(ValueError, match=f"{rule}: accumulate=4 and a batch of 2"):
            model.fit(dataset, shuffle=False, verbose=0)


class TestSkipNonfinite:
    @pytest.mark.parametrize(
        "options",
        [{"run_eagerly": True}, {"accumulate": 2, **ONE}],
        ids=["eager", "parts"],
    )
    def test_a_step_that_is_not_finite_changes_nothing(self, tiny, options):
        model = tiny((48, 32), bits=(2, 2))
        rate = keras.optimizers.schedules.CosineDecay(0.05, 10)
        model.compile(rs_keras.SGD(rate), **SKIP, **options)
        model.make_train_function()
        x, y = steps.batch(model)
        x = {key: images.astype("float32") for key, images in x.items()}
        wrong = {key: images.copy() for key, images in x.items()}
        wrong[32][5, 3, 3, 0] = np.nan

        def run(x):
            data = tf.nest.map_structure(tf.convert_to_tensor, (x, y))
            logs = model.train_function(iter([data]))
            variables = [*model.weights, *model.optimizer.variables]
            variables += model.metrics_variables
            return logs, {v.path: np.array(v) for v in variables}

        first, before = run(x)
        logs, after = run(wrong)
        assert (first["skipped_steps"], logs["skipped_steps"]) == (0, 1)
        assert logs["loss"] == first["loss"]
        for name, value in before.items():
            if "skipped_steps" not in name:
                np.testing.assert_array_equal(after[name], value, err_msg=name)
        logs, last = run(x)
        assert logs["skipped_steps"] == 1 and np.isfinite(logs["loss"])
        assert (last["tiny/head/kernel"] != after["tiny/head/kernel"]).any()
        assert last["SGD/iteration"] == after["SGD/iteration"] + 1

    def test_overflow_of_a_scaled_gradient_is_left_to_the_loss_scale(
        self, tiny, policy
    ):
        policy("mixed_float16")
        model = tiny((48, 32))
        model.compile(rs_keras.SGD(), run_eagerly=True, **SKIP)
        model.optimizer.dynamic_scale.assign(2.0**100)
        x, y = steps.batch(model)
        before = np.array(model.head.kernel)
        logs = model.train_on_batch(x, y, return_dict=True)
        assert logs["skipped_steps"] == 0
        assert float(model.optimizer.dynamic_scale.value) == 2.0**99
        np.testing.assert_array_equal(model.head.kernel, before)

    def test_skipped_steps_are_in_the_logs_of_training_alone(self, tiny):
        model = tiny((48, 32))
        model.compile(rs_keras.SGD(), run_eagerly=True)
        x, y = steps.batch(model)
        assert "skipped_steps" not in model.train_on_batch(x, y, return_dict=True)
        model.compile(rs_keras.SGD(), run_eagerly=True, **SKIP)
        history = model.fit(x, y, validation_data=(x, y), verbose=0).history
        assert history["skipped_steps"] == [0]
        assert "val_skipped_steps" not in history


def test_options_are_saved(tiny, tmp_path):
    model = tiny((48, 32))
    model.compile(rs_keras.SGD(), accumulate=2, **ONE, **SKIP)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.step_options == step.Options("one_resolution", 2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation_memory": "none"}, "must be one of .*Received: activation_m"),
        ({"accumulate": 0}, "positive integer. Received: accumulate=0"),
        ({"accumulate": 1.5}, "positive integer. Received: accumulate=1.5"),
        ({"skip_nonfinite": "no"}, "True or False. Received: skip_nonfinite='no'"),
    ],
)
def test_options_out_of_range_are_refused(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        tiny().compile(**options)

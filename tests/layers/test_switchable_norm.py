"""SwitchableBatchNormalization against numpy, PyTorch and Keras' own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rs_keras.layers import switchable_norm

RESOLUTIONS = (64, 48, 32)
# Sums of a few hundred float32 values of size 1, taken in another order.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def layer_with_rows(resolutions=RESOLUTIONS, channels=3, **kwargs):
    """A built layer whose rows are all different."""
    layer = switchable_norm.SwitchableBatchNormalization(resolutions, **kwargs)
    layer.build((None, None, None, channels))
    generator = np.random.default_rng(5)
    shape = (len(layer.keys), channels)
    layer.gamma.assign(generator.uniform(0.5, 2, shape))
    layer.beta.assign(generator.standard_normal(shape))
    layer.moving_mean.assign(generator.standard_normal(shape))
    layer.moving_variance.assign(generator.uniform(0.5, 2, shape))
    return layer


def images(shape=(4, 5, 6, 3), seed=0):
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) * 2 + 0.5).astype(np.float32)


def values(layer):
    return {v.name: v.numpy() for v in layer.variables}


def normalized(x, gamma, beta, mean, variance, epsilon=1e-5):
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def step(layer, x, upstream, **kwargs):
    """Output and gradients (x, gamma, beta) of sum(output * upstream) in training."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, **kwargs)
        loss = tf.reduce_sum(tf.cast(y, "float32") * upstream)
    sources = [x, layer.gamma.value, layer.beta.value]
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, sources)]
    return [np.asarray(tf.cast(t, "float32")) for t in (y, *gradients)]


class TestRows:
    def test_training_changes_the_row_of_its_resolution_only(self):
        layer = layer_with_rows()
        before = values(layer)
        _, _, d_gamma, d_beta = step(layer, images(), images(seed=1), resolution=48)
        after = values(layer)
        for name in ("moving_mean", "moving_variance"):
            changed = (before[name] != after[name]).all(axis=1)
            assert changed.tolist() == [False, True, False], name
        for gradient in (d_gamma, d_beta):
            assert (gradient != 0).any(axis=1).tolist() == [False, True, False]

    def test_update_equals_numpy_with_the_unbiased_variance(self):
        layer, x = layer_with_rows(momentum=0.7), images()
        before = values(layer)
        y = layer(x, resolution=32, training=True)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        n = x[..., 0].size
        expected = normalized(x, before["gamma"][2], before["beta"][2], mean, variance)
        np.testing.assert_allclose(y, expected, **TOLERANCE)
        np.testing.assert_allclose(
            layer.moving_mean.numpy()[2],
            0.7 * before["moving_mean"][2] + 0.3 * mean,
            **TOLERANCE,
        )
        np.testing.assert_allclose(
            layer.moving_variance.numpy()[2],
            0.7 * before["moving_variance"][2] + 0.3 * variance * n / (n - 1),
            **TOLERANCE,
        )

    @pytest.mark.parametrize("fused", [True, False])
    @pytest.mark.parametrize("unbiased", [True, False])
    def test_moving_variance_takes_the_chosen_estimate(
        self, monkeypatch, unbiased, fused
    ):
        layer = layer_with_rows(unbiased_moving_variance=unbiased, momentum=0.0)
        monkeypatch.setattr(layer, "_use_fused", lambda x: fused)
        x = images((2, 1, 2, 3))  # few values: 4 / 3 is far from 1
        layer(x, resolution=64, training=True)
        np.testing.assert_allclose(
            layer.moving_variance.numpy()[0],
            x.var((0, 1, 2), ddof=int(unbiased)),
            **TOLERANCE,
        )

    def test_epsilon_and_initializers_are_used(self):
        layer = switchable_norm.SwitchableBatchNormalization(
            (64, 32), epsilon=0.5, gamma_initializer="zeros", beta_initializer="ones"
        )
        x = images()
        np.testing.assert_array_equal(layer(x, resolution=32, training=True), 1.0)
        layer.gamma.assign(np.ones((2, 3)))
        y = layer(x, resolution=32, training=True)
        axes = (0, 1, 2)
        expected = normalized(x, 1, 1, x.mean(axes), x.var(axes), epsilon=0.5)
        np.testing.assert_allclose(y, expected, **TOLERANCE)

    def test_defaults_are_those_of_the_reference(self):
        layer = switchable_norm.SwitchableBatchNormalization(RESOLUTIONS)
        assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        assert layer.unbiased_moving_variance
        assert not layer.synchronized
        layer.build((None, 8, 8, 4))
        assert {v.name: tuple(v.shape) for v in layer.weights} == dict.fromkeys(
            ("gamma", "beta", "moving_mean", "moving_variance"), (3, 4)
        )

    def test_update_equals_pytorch(self):
        torch = pytest.importorskip("torch", reason="PyTorch is the reference here")
        layer, x, upstream = layer_with_rows(), images(), images(seed=1)
        reference = torch.nn.BatchNorm2d(3)
        before = values(layer)
        with torch.no_grad():
            reference.weight.copy_(torch.tensor(before["gamma"][1]))
            reference.bias.copy_(torch.tensor(before["beta"][1]))
            reference.running_mean.copy_(torch.tensor(before["moving_mean"][1]))
            reference.running_var.copy_(torch.tensor(before["moving_variance"][1]))
        theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        expected = reference(theirs)
        (expected * torch.tensor(upstream.transpose(0, 3, 1, 2))).sum().backward()

        y, d_x, d_gamma, d_beta = step(layer, x, upstream, resolution=48)
        pairs = [
            (y, expected.detach().numpy().transpose(0, 2, 3, 1)),
            (d_x, theirs.grad.numpy().transpose(0, 2, 3, 1)),
            (d_gamma[1], reference.weight.grad.numpy()),
            (d_beta[1], reference.bias.grad.numpy()),
            (layer.moving_mean.numpy()[1], reference.running_mean.numpy()),
            (layer.moving_variance.numpy()[1], reference.running_var.numpy()),
        ]
        for got, wanted in pairs:
            np.testing.assert_allclose(got, wanted, **TOLERANCE)


class TestSingleResolution:
    @pytest.mark.parametrize("fused", [True, False])
    def test_single_resolution_equals_batch_normalization(self, monkeypatch, fused):
        layer = layer_with_rows(
            (64,), momentum=0.8, epsilon=1e-3, unbiased_moving_variance=False
        )
        monkeypatch.setattr(layer, "_use_fused", lambda x: fused)
        stock = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3)
        stock.build((None, None, None, 3))
        stock.set_weights([v.numpy()[0] for v in layer.weights])
        upstream = images(seed=1)
        for seed in (0, 2):
            ours = step(layer, images(seed=seed), upstream)
            theirs = step(stock, images(seed=seed), upstream)
            for got, expected in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(
                    got.reshape(expected.shape), expected, **TOLERANCE
                )
        for got, expected in zip(layer.weights, stock.weights, strict=True):
            np.testing.assert_allclose(got.numpy()[0], expected.numpy(), **TOLERANCE)
        np.testing.assert_allclose(layer(images()), stock(images()), **TOLERANCE)

    def test_frozen_layer_normalizes_with_moving_statistics(self):
        layer = layer_with_rows()
        layer.trainable = False
        before = values(layer)
        y = layer(images(), resolution=32, training=True)
        rows = (before[n][2] for n in ("gamma", "beta", "moving_mean"))
        expected = normalized(images(), *rows, before["moving_variance"][2])
        np.testing.assert_allclose(y, expected, **TOLERANCE)
        for name, value in values(layer).items():
            np.testing.assert_array_equal(value, before[name])

    def test_every_resolution_trains_a_shared_row(self):
        layer = layer_with_rows((64,), momentum=0.0)
        for resolution in (64, 48, 32):
            x = images(seed=resolution)
            layer(x, resolution=resolution, training=True)
            mean = layer.moving_mean.numpy()[0]
            np.testing.assert_allclose(mean, x.mean((0, 1, 2)), **TOLERANCE)


class TestInterpolation:
    # resolution -> share of each row
    CASES = {
        64: (1, 0, 0),
        48: (0, 1, 0),
        32: (0, 0, 1),
        60: (0.75, 0.25, 0),
        50.0: (0.125, 0.875, 0),
        36: (0, 0.25, 0.75),
        47.5: (0, 0.96875, 0.03125),
        200: (1, 0, 0),
        65: (1, 0, 0),
        31: (0, 0, 1),
        1: (0, 0, 1),
    }

    @staticmethod
    def expected(layer, shares, x):
        stacked = values(layer)
        rows = {name: np.array(shares) @ value for name, value in stacked.items()}
        return normalized(
            x,
            rows["gamma"],
            rows["beta"],
            rows["moving_mean"],
            rows["moving_variance"],
        )

    @pytest.mark.parametrize("resolution", CASES)
    def test_numbers_interpolate_between_neighbours_and_stop_at_the_ends(
        self, resolution
    ):
        layer, x = layer_with_rows(), images()
        y = layer(x, resolution=resolution)
        expected = self.expected(layer, self.CASES[resolution], x)
        np.testing.assert_allclose(y, expected, **TOLERANCE)

    def test_scalar_tensors_do_the_same_in_one_graph(self):
        layer, x = layer_with_rows(), images()
        traces = []

        @tf.function
        def call(x, resolution):
            traces.append(resolution)
            return layer(x, resolution=resolution)

        for resolution, shares in self.CASES.items():
            expected = self.expected(layer, shares, x)
            eager = layer(x, resolution=tf.constant(resolution, "float32"))
            np.testing.assert_allclose(eager, expected, **TOLERANCE)
            graph = call(x, tf.constant(resolution, "float32"))
            np.testing.assert_allclose(graph, expected, **TOLERANCE)
        assert len(traces) == 1

    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
    def test_integer_tensors_and_numpy_integers_equal_ints(self, dtype):
        layer, x = layer_with_rows(), images()
        expected = layer(x, resolution=60)
        tensor = layer(x, resolution=tf.constant(60, dtype))
        np.testing.assert_allclose(tensor, expected, **TOLERANCE)
        number = layer(x, resolution=np.array([60], dtype)[0])
        np.testing.assert_array_equal(number, expected)

    def test_none_is_the_largest(self):
        layer, x = layer_with_rows(), images()
        np.testing.assert_array_equal(layer(x), layer(x, resolution=64))

    def test_single_row_serves_every_resolution(self):
        layer, x = layer_with_rows((48,)), images()
        for resolution in (1, 48, 99.5, tf.constant(20), tf.constant(80)):
            np.testing.assert_array_equal(layer(x, resolution=resolution), layer(x))


class TestPaths:
    # Outputs are compared in units of the dtype's own rounding; gradients wrt x are
    # differences of sums over all values, a few roundings more.
    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [("float32", 2e-5), ("mixed_float16", 4e-3), ("mixed_bfloat16", 3e-2)],
    )
    @pytest.mark.parametrize("shape", [(4, 5, 6, 3), (2, 1, 1, 3), (1, 1, 1, 3)])
    def test_fused_equals_unfused(self, monkeypatch, shape, dtype, tolerance):
        results = {}
        upstream = images(shape, seed=1)
        for fused in (True, False):
            layer = layer_with_rows(dtype=dtype)
            x = tf.cast(images(shape), layer.compute_dtype)
            assert layer._use_fused(x)
            monkeypatch.setattr(layer, "_use_fused", lambda x, fused=fused: fused)
            outputs = step(layer, x, upstream, resolution=48)
            results[fused] = [*outputs, *values(layer).values()]
            assert layer(x, resolution=48, training=True).dtype == layer.compute_dtype
        for got, expected in zip(results[True], results[False], strict=True):
            assert np.isfinite(got).all()
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)

    def test_vectors_are_normalized_without_the_fused_kernel(self):
        layer, x = layer_with_rows(), images((9, 3))
        assert not layer._use_fused(tf.constant(x))
        y = layer(x, resolution=48, training=True)
        gamma, beta = layer.gamma.numpy()[1], layer.beta.numpy()[1]
        expected = normalized(x, gamma, beta, x.mean(0), x.var(0))
        np.testing.assert_allclose(y, expected, **TOLERANCE)

    def test_half_precision_statistics_of_large_values_stay_finite(self):
        # 300 ** 2 is beyond float16's 65504.
        layer = layer_with_rows(dtype="mixed_float16")
        x = tf.constant(300 + 200 * images((4, 4, 4, 3)), "float16")
        for training in (True, False):
            y = layer(x, resolution=64, training=training)
            assert y.dtype == "float16"
            assert np.isfinite(y.numpy()).all()

    def test_parameters_stay_float32_under_a_half_precision_policy(self):
        for v in layer_with_rows(dtype="mixed_bfloat16").variables:
            assert v.dtype == "float32"


class TestViews:
    def test_views_have_a_row_each(self):
        layer = layer_with_rows((64,), views=3)
        assert layer.keys == ("64_view1", "64_view2", "64_view3")
        before = values(layer)
        layer(images(), resolution="64_view2", training=True)
        changed = (before["moving_mean"] != layer.moving_mean.numpy()).all(axis=1)
        assert changed.tolist() == [False, True, False]
        y = layer(images(), resolution="64_view3")
        rows = [before[n][2] for n in ("gamma", "beta", "moving_mean")]
        expected = normalized(images(), *rows, before["moving_variance"][2])
        np.testing.assert_allclose(y, expected, **TOLERANCE)


class TestErrors:
    @pytest.mark.parametrize("wrong", [True, 0, -3, [64], (64, 48), None.__class__])
    def test_resolution_of_the_wrong_kind_is_refused(self, wrong):
        with pytest.raises(ValueError) as error:
            layer_with_rows().parameters_at(wrong)
        assert str(error.value) == (
            "`resolution` must be a positive number, a scalar tensor, or None for the "
            f"largest. Received: resolution={wrong!r}"
        )

    def test_unknown_branch_is_refused(self):
        with pytest.raises(
            ValueError, match=r"one of \(64, 48, 32\). Received: .*'64'"
        ):
            layer_with_rows()(images(), resolution="64")

    @pytest.mark.parametrize("resolution", [60, 100, 48.5])
    def test_training_at_a_resolution_without_a_row_is_refused(self, resolution):
        with pytest.raises(
            ValueError, match=rf"one of \(64, 48, 32\). Received: .*={resolution}"
        ):
            layer_with_rows()(images(), resolution=resolution, training=True)

    def test_training_at_a_tensor_is_refused(self):
        with pytest.raises(ValueError, match="`resolution` as an int.* Received: "):
            layer_with_rows()(images(), resolution=tf.constant(64), training=True)

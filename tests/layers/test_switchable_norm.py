"""SwitchableBatchNormalization against numpy, PyTorch and Keras' own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rs_keras.layers import switchable_norm
from tests.layers import norms


class TestRows:
    def test_training_changes_the_row_of_its_resolution_only(self):
        layer = norms.layer_with_rows()
        before = norms.values(layer)
        _, _, d_gamma, d_beta = norms.step(
            layer, norms.images(), norms.images(seed=1), resolution=48
        )
        after = norms.values(layer)
        for name in ("moving_mean", "moving_variance"):
            changed = (before[name] != after[name]).all(axis=1)
            assert changed.tolist() == [False, True, False], name
        for gradient in (d_gamma, d_beta):
            assert (gradient != 0).any(axis=1).tolist() == [False, True, False]

    def test_update_equals_numpy_with_the_unbiased_variance(self):
        layer, x = norms.layer_with_rows(momentum=0.7), norms.images()
        before = norms.values(layer)
        y = layer(x, resolution=32, training=True)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        n = x[..., 0].size
        expected = norms.normalized(
            x, before["gamma"][2], before["beta"][2], mean, variance
        )
        np.testing.assert_allclose(y, expected, **norms.TOLERANCE)
        np.testing.assert_allclose(
            layer.moving_mean.numpy()[2],
            0.7 * before["moving_mean"][2] + 0.3 * mean,
            **norms.TOLERANCE,
        )
        np.testing.assert_allclose(
            layer.moving_variance.numpy()[2],
            0.7 * before["moving_variance"][2] + 0.3 * variance * n / (n - 1),
            **norms.TOLERANCE,
        )

    @pytest.mark.parametrize("fused", [True, False])
    @pytest.mark.parametrize("unbiased", [True, False])
    def test_moving_variance_takes_the_chosen_estimate(
        self, monkeypatch, unbiased, fused
    ):
        layer = norms.layer_with_rows(unbiased_moving_variance=unbiased, momentum=0.0)
        monkeypatch.setattr(layer, "_use_fused", lambda x: fused)
        x = norms.images((2, 1, 2, 3))  # few norms.values: 4 / 3 is far from 1
        layer(x, resolution=64, training=True)
        np.testing.assert_allclose(
            layer.moving_variance.numpy()[0],
            x.var((0, 1, 2), ddof=int(unbiased)),
            **norms.TOLERANCE,
        )

    def test_epsilon_and_initializers_are_used(self):
        layer = switchable_norm.SwitchableBatchNormalization(
            (64, 32), epsilon=0.5, gamma_initializer="zeros", beta_initializer="ones"
        )
        x = norms.images()
        np.testing.assert_array_equal(layer(x, resolution=32, training=True), 1.0)
        layer.gamma.assign(np.ones((2, 3)))
        y = layer(x, resolution=32, training=True)
        axes = (0, 1, 2)
        expected = norms.normalized(x, 1, 1, x.mean(axes), x.var(axes), epsilon=0.5)
        np.testing.assert_allclose(y, expected, **norms.TOLERANCE)

    def test_defaults_are_those_of_the_reference(self):
        layer = switchable_norm.SwitchableBatchNormalization(norms.RESOLUTIONS)
        assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        assert layer.unbiased_moving_variance
        assert not layer.synchronized
        layer.build((None, 8, 8, 4))
        assert {v.name: tuple(v.shape) for v in layer.weights} == dict.fromkeys(
            ("gamma", "beta", "moving_mean", "moving_variance"), (3, 4)
        )

    def test_update_equals_pytorch(self):
        torch = pytest.importorskip("torch", reason="PyTorch is the reference here")
        layer, x, upstream = (
            norms.layer_with_rows(),
            norms.images(),
            norms.images(seed=1),
        )
        reference = torch.nn.BatchNorm2d(3)
        before = norms.values(layer)
        with torch.no_grad():
            reference.weight.copy_(torch.tensor(before["gamma"][1]))
            reference.bias.copy_(torch.tensor(before["beta"][1]))
            reference.running_mean.copy_(torch.tensor(before["moving_mean"][1]))
            reference.running_var.copy_(torch.tensor(before["moving_variance"][1]))
        theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        expected = reference(theirs)
        (expected * torch.tensor(upstream.transpose(0, 3, 1, 2))).sum().backward()

        y, d_x, d_gamma, d_beta = norms.step(layer, x, upstream, resolution=48)
        pairs = [
            (y, expected.detach().numpy().transpose(0, 2, 3, 1)),
            (d_x, theirs.grad.numpy().transpose(0, 2, 3, 1)),
            (d_gamma[1], reference.weight.grad.numpy()),
            (d_beta[1], reference.bias.grad.numpy()),
            (layer.moving_mean.numpy()[1], reference.running_mean.numpy()),
            (layer.moving_variance.numpy()[1], reference.running_var.numpy()),
        ]
        for got, wanted in pairs:
            np.testing.assert_allclose(got, wanted, **norms.TOLERANCE)


class TestSingleResolution:
    @pytest.mark.parametrize("fused", [True, False])
    def test_single_resolution_equals_batch_normalization(self, monkeypatch, fused):
        layer = norms.layer_with_rows(
            (64,), momentum=0.8, epsilon=1e-3, unbiased_moving_variance=False
        )
        monkeypatch.setattr(layer, "_use_fused", lambda x: fused)
        stock = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3)
        stock.build((None, None, None, 3))
        stock.set_weights([v.numpy()[0] for v in layer.weights])
        upstream = norms.images(seed=1)
        for seed in (0, 2):
            ours = norms.step(layer, norms.images(seed=seed), upstream)
            theirs = norms.step(stock, norms.images(seed=seed), upstream)
            for got, expected in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(
                    got.reshape(expected.shape), expected, **norms.TOLERANCE
                )
        for got, expected in zip(layer.weights, stock.weights, strict=True):
            np.testing.assert_allclose(
                got.numpy()[0], expected.numpy(), **norms.TOLERANCE
            )
        np.testing.assert_allclose(
            layer(norms.images()), stock(norms.images()), **norms.TOLERANCE
        )

    def test_frozen_layer_normalizes_with_moving_statistics(self):
        layer = norms.layer_with_rows()
        layer.trainable = False
        before = norms.values(layer)
        y = layer(norms.images(), resolution=32, training=True)
        rows = (before[n][2] for n in ("gamma", "beta", "moving_mean"))
        expected = norms.normalized(norms.images(), *rows, before["moving_variance"][2])
        np.testing.assert_allclose(y, expected, **norms.TOLERANCE)
        for name, value in norms.values(layer).items():
            np.testing.assert_array_equal(value, before[name])

    def test_every_resolution_trains_a_shared_row(self):
        layer = norms.layer_with_rows((64,), momentum=0.0)
        for resolution in (64, 48, 32):
            x = norms.images(seed=resolution)
            layer(x, resolution=resolution, training=True)
            mean = layer.moving_mean.numpy()[0]
            np.testing.assert_allclose(mean, x.mean((0, 1, 2)), **norms.TOLERANCE)


class TestPaths:
    # Outputs are compared in units of the dtype's own rounding; gradients wrt x are
    # differences of sums over all norms.values, a few roundings more.
    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [("float32", 2e-5), ("mixed_float16", 4e-3), ("mixed_bfloat16", 3e-2)],
    )
    @pytest.mark.parametrize("shape", [(4, 5, 6, 3), (2, 1, 1, 3), (1, 1, 1, 3)])
    def test_fused_equals_unfused(self, monkeypatch, shape, dtype, tolerance):
        results = {}
        upstream = norms.images(shape, seed=1)
        for fused in (True, False):
            layer = norms.layer_with_rows(dtype=dtype)
            x = tf.cast(norms.images(shape), layer.compute_dtype)
            assert layer._use_fused(x)
            monkeypatch.setattr(layer, "_use_fused", lambda x, fused=fused: fused)
            outputs = norms.step(layer, x, upstream, resolution=48)
            results[fused] = [*outputs, *norms.values(layer).values()]
            assert layer(x, resolution=48, training=True).dtype == layer.compute_dtype
        for got, expected in zip(results[True], results[False], strict=True):
            assert np.isfinite(got).all()
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)

    def test_vectors_are_normalized_without_the_fused_kernel(self):
        layer, x = norms.layer_with_rows(), norms.images((9, 3))
        assert not layer._use_fused(tf.constant(x))
        y = layer(x, resolution=48, training=True)
        gamma, beta = layer.gamma.numpy()[1], layer.beta.numpy()[1]
        expected = norms.normalized(x, gamma, beta, x.mean(0), x.var(0))
        np.testing.assert_allclose(y, expected, **norms.TOLERANCE)

    def test_half_precision_statistics_of_large_values_stay_finite(self):
        # 300 ** 2 is beyond float16's 65504.
        layer = norms.layer_with_rows(dtype="mixed_float16")
        x = tf.constant(300 + 200 * norms.images((4, 4, 4, 3)), "float16")
        for training in (True, False):
            y = layer(x, resolution=64, training=training)
            assert y.dtype == "float16"
            assert np.isfinite(y.numpy()).all()

    def test_parameters_stay_float32_under_a_half_precision_policy(self):
        for v in norms.layer_with_rows(dtype="mixed_bfloat16").variables:
            assert v.dtype == "float32"


class TestViews:
    def test_views_have_a_row_each(self):
        layer = norms.layer_with_rows((64,), views=3)
        assert layer.keys == ("64_view1", "64_view2", "64_view3")
        before = norms.values(layer)
        layer(norms.images(), resolution="64_view2", training=True)
        changed = (before["moving_mean"] != layer.moving_mean.numpy()).all(axis=1)
        assert changed.tolist() == [False, True, False]
        y = layer(norms.images(), resolution="64_view3")
        rows = [before[n][2] for n in ("gamma", "beta", "moving_mean")]
        expected = norms.normalized(norms.images(), *rows, before["moving_variance"][2])
        np.testing.assert_allclose(y, expected, **norms.TOLERANCE)


class TestErrors:
    @pytest.mark.parametrize("wrong", [True, 0, -3, [64], (64, 48), None.__class__])
    def test_resolution_of_the_wrong_kind_is_refused(self, wrong):
        with pytest.raises(ValueError) as error:
            norms.layer_with_rows().parameters_at(wrong)
        assert str(error.value) == (
            "`resolution` must be a positive number, a scalar tensor, or None for the "
            f"largest. Received: resolution={wrong!r}"
        )

    def test_unknown_branch_is_refused(self):
        with pytest.raises(
            ValueError, match="must be a positive number, .* Received: .*'64'"
        ):
            norms.layer_with_rows()(norms.images(), resolution="64")

    @pytest.mark.parametrize("resolution", [60, 100, 48.5])
    def test_training_at_a_resolution_without_a_row_is_refused(self, resolution):
        with pytest.raises(
            ValueError, match=rf"one of \(64, 48, 32\). Received: .*={resolution}"
        ):
            norms.layer_with_rows()(
                norms.images(), resolution=resolution, training=True
            )

    def test_training_at_a_tensor_is_refused(self):
        with pytest.raises(ValueError, match="`resolution` as an int.* Received: "):
            norms.layer_with_rows()(
                norms.images(), resolution=tf.constant(64), training=True
            )

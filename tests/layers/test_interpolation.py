"""Resolutions between, beyond and as tensors: which rows are used."""

import numpy as np
import pytest
import tensorflow as tf

from tests.layers import norms


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
        stacked = norms.values(layer)
        rows = {name: np.array(shares) @ value for name, value in stacked.items()}
        return norms.normalized(
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
        layer, x = norms.layer_with_rows(), norms.images()
        y = layer(x, resolution=resolution)
        expected = self.expected(layer, self.CASES[resolution], x)
        np.testing.assert_allclose(y, expected, **norms.TOLERANCE)

    def test_scalar_tensors_do_the_same_in_one_graph(self):
        layer, x = norms.layer_with_rows(), norms.images()
        traces = []

        @tf.function
        def call(x, resolution):
            traces.append(resolution)
            return layer(x, resolution=resolution)

        for resolution, shares in self.CASES.items():
            expected = self.expected(layer, shares, x)
            eager = layer(x, resolution=tf.constant(resolution, "float32"))
            np.testing.assert_allclose(eager, expected, **norms.TOLERANCE)
            graph = call(x, tf.constant(resolution, "float32"))
            np.testing.assert_allclose(graph, expected, **norms.TOLERANCE)
        assert len(traces) == 1

    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
    def test_integer_tensors_and_numpy_integers_equal_ints(self, dtype):
        layer, x = norms.layer_with_rows(), norms.images()
        expected = layer(x, resolution=60)
        tensor = layer(x, resolution=tf.constant(60, dtype))
        np.testing.assert_allclose(tensor, expected, **norms.TOLERANCE)
        number = layer(x, resolution=np.array([60], dtype)[0])
        np.testing.assert_array_equal(number, expected)

    def test_none_is_the_largest(self):
        layer, x = norms.layer_with_rows(), norms.images()
        np.testing.assert_array_equal(layer(x), layer(x, resolution=64))

    def test_single_row_serves_every_resolution(self):
        layer, x = norms.layer_with_rows((48,)), norms.images()
        for resolution in (1, 48, 99.5, tf.constant(20), tf.constant(80)):
            np.testing.assert_array_equal(layer(x, resolution=resolution), layer(x))

"""Copies of a kernel are recognized by their values, and nothing else is."""

import numpy as np
import pytest
import tensorflow as tf

from rs_keras.export import flatbuffer
from rs_keras.export import weight_sharing
from tests.export import files

# (shape as in a file, axis of the output channels)
SHAPES = {
    "convolution": ((24, 3, 3, 5), 0),
    "depthwise": ((1, 3, 3, 24), 3),
    "dense": ((24, 11), 0),
}
# Both copies and the factor between them are rounded, and the reconstruction is not:
# three roundings of 2**-24 each, against the largest of a channel.
ROUNDINGS = 3 * 2.0**-24


def _use(channels):
    return weight_sharing.Use(None, None, np.ones(channels))


def _kernel(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _times(values, factors, axis):
    """A copy as a converter makes it: the product, rounded to float32."""
    shape = [1] * values.ndim
    shape[axis] = -1
    return (values.astype("float64") * np.reshape(factors, shape)).astype("float32")


def _shared(values, axis, *copies):
    kernel = weight_sharing.SharedKernel(values, axis, _use(values.shape[axis]))
    assert all(kernel.add(c, axis, _use(c.shape[axis])) for c in copies)
    return kernel


def _assert_equals(kernel, *copies):
    """Every use, times its factors, is the copy that it was made of."""
    for use, copy in zip(kernel.uses, copies, strict=True):
        found = np.moveaxis(kernel.values.astype("float64"), kernel.axis, -1)
        expected = np.moveaxis(copy.astype("float64"), kernel.axis, -1)
        difference = np.abs(found * use.factors - expected)
        largest = np.abs(expected).reshape(-1, expected.shape[-1]).max(axis=0)
        assert np.all(difference <= ROUNDINGS * largest)


def _factors(channels, seed):
    """Of all kinds: positive and negative, tiny, large, and zero."""
    generator = np.random.default_rng(seed)
    factors = generator.normal(size=channels)
    factors[generator.permutation(channels)[:6]] = [0, 0, 1e-7, -1e-7, 15, -15]
    return factors


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", SHAPES)
def test_copies_are_one_kernel_times_a_factor_for_each_channel(kind, seed):
    shape, axis = SHAPES[kind]
    true = _kernel(shape, seed)
    # None of the copies is the kernel itself: five resolutions, each with its own.
    factors = [np.exp(np.random.default_rng(seed).normal(size=24) / 3)]
    factors += [_factors(24, 10 * seed + i) for i in range(4)]
    copies = [_times(true, f, axis) for f in factors]
    kernel = _shared(copies[0], axis, *copies[1:])
    assert kernel.values.shape == shape and kernel.values.dtype == "float32"
    _assert_equals(kernel, *copies)
    np.testing.assert_array_equal(kernel.uses[0].factors, 1)
    for use, found in zip(kernel.uses, factors, strict=True):
        np.testing.assert_allclose(use.factors, found / factors[0], rtol=4e-7)
    peaks = np.abs(np.moveaxis(copies[0], axis, 0).reshape(24, -1)).max(axis=1)
    np.testing.assert_array_equal(kernel.peaks, peaks)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_channel_that_the_first_copy_lacks_comes_from_a_later_one(kind):
    shape, axis = SHAPES[kind]
    true = _kernel(shape)
    factors = np.ones((4, 24))
    factors[0, [2, 5, 7]] = 0
    factors[1, [2, 7]] = 0
    factors[1, 5] = -3
    factors[2:, 2] = 2, 0.5
    factors[:, 7] = 0  # nowhere there
    copies = [_times(true, f, axis) for f in factors]
    kernel = _shared(copies[0], axis, *copies[1:])
    _assert_equals(kernel, *copies)
    found = np.array([use.factors for use in kernel.uses])
    np.testing.assert_allclose(found[:, 2], [0, 0, 1, 0.25], rtol=4e-7)
    np.testing.assert_allclose(found[:, 5], [0, 1, -1 / 3, -1 / 3], rtol=4e-7)
    assert np.all(np.isfinite(found))
    assert kernel.peaks[7] == 0


def test_balance_leaves_no_large_factor_and_every_product_as_it_was():
    true = _kernel((24, 3, 3, 5))
    factors = np.ones((3, 24))
    factors[1:, :4] = [[1e6, -1e6, 16, 17], [-3, 2e7, 0, 0]]
    copies = [_times(true, f, 0) for f in factors]
    kernel = _shared(copies[0], 0, *copies[1:])
    kernel.balance()
    _assert_equals(kernel, *copies)
    found = np.array([use.factors for use in kernel.uses])
    assert np.abs(found).max() <= weight_sharing.LARGEST_FACTOR
    # Channels without a large factor stay as they are.
    np.testing.assert_array_equal(kernel.values[4:], copies[0][4:])
    np.testing.assert_array_equal(kernel.values[2], copies[0][2])
    np.testing.assert_allclose(found[:, 3], [1 / 17, 1, 0], rtol=4e-7)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", SHAPES)
def test_a_kernel_that_differs_in_one_element_is_another(kind, seed):
    shape, axis = SHAPES[kind]
    first = _kernel(shape, seed)
    factors = np.exp(np.random.default_rng(seed).normal(size=24) / 3)
    second = _times(first, factors, axis)
    kernel = _shared(first, axis)
    generator = np.random.default_rng(100 + seed)
    for _ in range(20):
        place = tuple(generator.integers(0, n) for n in shape)
        channel = np.take(second, place[axis], axis=axis)
        for difference, is_equal in ((1e-5, False), (-1e-5, False), (1e-7, True)):
            changed = second.copy()
            changed[place] += difference * np.abs(channel).max()
            before = kernel.values
            uses = len(kernel.uses)
            assert kernel.add(changed, axis, _use(24)) == is_equal
            if not is_equal:
                # Nothing has changed.
                assert len(kernel.uses) == uses
                np.testing.assert_array_equal(kernel.values, before)


def test_other_kernels_shapes_and_axes_are_not_shared():
    first = _kernel((8, 8, 3, 8))
    kernel = _shared(first, 0)
    assert not kernel.add(_kernel((8, 8, 3, 8), seed=1), 0, _use(8))
    assert not kernel.add(first[:, :4], 0, _use(8))
    assert not kernel.add(first.reshape(8, 3, 8, 8), 0, _use(8))
    assert not kernel.add(first, 3, _use(8))
    # A factor for each input is none for each output.
    assert not kernel.add(_times(first, 1 + np.arange(8), 3), 0, _use(8))
    assert len(kernel.uses) == 1


def _graph(factors, other):
    """A depthwise convolution, with factors, and two others behind it."""
    depthwise = _times(_kernel((3, 3, 6, 1)), factors, 2)
    # Of one shape: only values tell them apart.
    kernels = [_kernel((1, 1, 6, 6), seed) for seed in (1, other)]

    def function(image):
        x = tf.nn.depthwise_conv2d(image, depthwise, (1, 1, 1, 1), "SAME")
        for kernel in kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        return {"logits": tf.reduce_mean(x, (1, 2))}

    return function


def test_kernels_of_a_file_are_found_across_its_signatures():
    factors = np.array([1, -2, 0, 0.5, 1e-3, 3])
    model = flatbuffer.read(
        files.convert(
            {
                "small": (_graph(factors, 2), (1, 8, 8, 6)),
                "large": (_graph(np.ones(6), 2), (1, 12, 12, 6)),
                "stranger": (_graph(np.ones(6), 3), (1, 10, 10, 6)),
            }
        )
    )
    graphs = {
        s.signatureKey.decode(): model.subgraphs[s.subgraphIndex]
        for s in model.signatureDefs
    }

    def names(kernel):
        return [next(k for k, g in graphs.items() if g is u.graph) for u in kernel.uses]

    found = weight_sharing.find(model)
    # From the largest input to the smallest.
    everybody = ["large", "stranger", "small"]
    depthwise = [k for k in found if k.axis == 3]
    assert [names(kernel) for kernel in depthwise] == [everybody]
    np.testing.assert_array_equal(depthwise[0].values[0], _kernel((3, 3, 6, 1))[..., 0])
    rows = [use.factors for use in depthwise[0].uses]
    np.testing.assert_allclose(rows, [np.ones(6), np.ones(6), factors], rtol=4e-7)
    others = [names(kernel) for kernel in found if kernel.axis == 0]
    assert sorted(others) == [["large", "small"], everybody, ["stranger"]]

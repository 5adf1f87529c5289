"""Pure functions of LQ-Nets against the reference's numbers and against numpy."""

import keras
import numpy as np
import pytest
from keras import ops

from quant import lq_math
from tests import golden
from tests.quant import draws

BITS = range(1, lq_math.MAX_BITS + 1)


def draw(kind, bits):
    """A tensor and a basis that has been fitted to it once, from the initial one."""
    if kind == "weights":
        x, fan_out, channels = draws.weights(1), 9 * 32, 32
    else:
        x, fan_out, channels = draws.activations(bits, 1), None, 1
    basis = np.tile(lq_math.initial_basis(kind, bits, fan_out)[:, None], channels)
    return x, ops.convert_to_numpy(lq_math.fit_basis(x, basis, kind))


def nearest_levels(x, basis, kind):
    """numpy: the nearest level of each element, in float64, one level at a time."""
    grid = np.sort(lq_math.codes(len(basis), kind) @ basis.astype("float64"), axis=0)
    best = np.broadcast_to(grid[0], x.shape).copy()
    for level in grid[1:]:
        best = np.where(np.abs(x - level) < np.abs(x - best), level, best)
    return best


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_five_updates_match_the_reference(kind, bits):
    file = golden.arrays(f"lq_{draws.FILES[kind]}_bit{bits}.npz")
    basis = file["basis0"]
    biased = np.zeros_like(basis)
    fan_out = 9 * 32
    initial = lq_math.initial_basis(kind, bits, fan_out)
    # The first step, from the initial basis of the reference.
    np.testing.assert_allclose(initial, basis[:, 0], rtol=1e-6)
    for step in range(1, 6):
        x = draws.weights(step) if kind == "weights" else draws.activations(bits, step)
        if f"y{step}" in file:
            y = lq_math.quantize(x, basis, kind)
            np.testing.assert_allclose(y, file[f"y{step}"], atol=1e-5)
        if f"grad{step}" in file:
            seed = 900 if kind == "weights" else 901
            upstream = np.random.default_rng(seed).standard_normal(x.shape)
            upstream = upstream.astype("float32")
            np.testing.assert_array_equal(
                gradient(x, basis, kind, upstream), file[f"grad{step}"]
            )
        new = ops.convert_to_numpy(lq_math.fit_basis(x, basis, kind))
        np.testing.assert_allclose(new, file[f"new_basis{step}"], atol=1e-5)
        biased = 0.9 * biased + 0.1 * new
        basis = (biased / (1 - 0.9**step)).astype("float32")
        np.testing.assert_allclose(basis, file[f"basis{step}"], atol=1e-5)
        basis = file[f"basis{step}"]


def gradient(x, basis, kind, upstream):
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = lq_math.quantize(x, tf.constant(basis), kind)
    return tape.gradient(y, x, output_gradients=tf.constant(upstream)).numpy()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_outputs_are_the_nearest_levels(kind, bits):
    x, basis = draw(kind, bits)
    y = ops.convert_to_numpy(lq_math.quantize(x, basis, kind))
    grid = ops.convert_to_numpy(lq_math.levels(basis, kind))
    # Exactly a level of its channel: what is packed later are their indices.
    index = ops.convert_to_numpy(lq_math.level_indices(x, basis, kind))
    np.testing.assert_array_equal(
        y,
        np.take_along_axis(
            np.broadcast_to(grid, (len(grid), x.shape[-1])),
            index.reshape(-1, x.shape[-1]),
            0,
        ).reshape(x.shape),
    )
    np.testing.assert_allclose(y, nearest_levels(x, basis, kind), atol=1e-5)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_quantize_is_idempotent_and_monotone(kind, bits):
    x, basis = draw(kind, bits)
    y = ops.convert_to_numpy(lq_math.quantize(x, basis, kind))
    np.testing.assert_array_equal(lq_math.quantize(y, basis, kind), y)
    rows = np.sort(x.reshape(-1, x.shape[-1]), axis=0)
    ascending = ops.convert_to_numpy(lq_math.quantize(rows, basis, kind))
    assert (np.diff(ascending, axis=0) >= 0).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_error_never_rises_after_a_fit(kind, bits):
    x, basis = draw(kind, bits)
    axis = tuple(range(3)) if kind == "weights" else None

    def error(basis):
        y = ops.convert_to_numpy(lq_math.quantize(x, basis, kind))
        return np.square(x.astype("float64") - y).sum(axis=axis)

    before = error(basis)
    for _ in range(3):
        basis = ops.convert_to_numpy(lq_math.fit_basis(x, basis, kind))
        after = error(basis)
        # The ridge and float32 leave a little room.
        assert (after <= before * (1 + 1e-5) + 1e-9).all()
        before = after


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_permuted_channels_permute_the_result(bits):
    x, basis = draw("weights", bits)
    order = np.random.default_rng(0).permutation(x.shape[-1])
    np.testing.assert_array_equal(
        lq_math.quantize(x[..., order], basis[:, order], "weights"),
        ops.convert_to_numpy(lq_math.quantize(x, basis, "weights"))[..., order],
    )
    np.testing.assert_allclose(
        lq_math.fit_basis(x[..., order], basis[:, order], "weights"),
        ops.convert_to_numpy(lq_math.fit_basis(x, basis, "weights"))[:, order],
        rtol=1e-5,
    )


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_fit_equals_a_least_squares_solver(kind, bits):
    x, basis = draw(kind, bits)
    index = ops.convert_to_numpy(lq_math.level_indices(x, basis, kind))
    raw = lq_math.codes(bits, kind) @ basis
    order = np.argsort(raw, axis=0, kind="stable")
    new = ops.convert_to_numpy(lq_math.fit_basis(x, basis, kind))
    for channel in range(basis.shape[1]):
        pick = (slice(None),) * 3 + (channel,) if kind == "weights" else ...
        values = x[pick].ravel().astype("float64")
        b = lq_math.codes(bits, kind)[order[:, channel]][index[pick].ravel()]
        assert error_of(new[:, channel], b, values) <= (
            error_of(np.linalg.lstsq(b, values)[0], b, values) * (1 + 1e-4) + 1e-9
        )


def error_of(basis, b, values):
    return np.square(values - b @ basis).sum()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    "x", [np.zeros((2, 3, 3, 4), "float32"), np.full((2, 3, 3, 4), 0.7, "float32")]
)
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_constant_tensors_have_a_defined_fit(kind, bits, x):
    fan_out, channels = (36, 4) if kind == "weights" else (None, 1)
    basis = np.tile(lq_math.initial_basis(kind, bits, fan_out)[:, None], channels)
    for _ in range(20):
        basis = ops.convert_to_numpy(lq_math.fit_basis(x, basis, kind))
        assert np.isfinite(basis).all()
    y = ops.convert_to_numpy(lq_math.quantize(x, basis, kind))
    np.testing.assert_allclose(y, x, atol=2e-3)


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_bit_that_is_never_set_keeps_its_basis(bits):
    basis = lq_math.initial_basis("activations", bits)[:, None]
    # Below half of the second basis value only the first bit is ever set.
    x = np.linspace(0, float(basis[1, 0]) * 0.7, 1000, dtype="float32")
    new = ops.convert_to_numpy(lq_math.fit_basis(x, basis, "activations"))
    np.testing.assert_array_equal(new[1:], basis[1:])
    taken = x[x > basis[0, 0] / 2]
    np.testing.assert_allclose(new[0, 0], taken.mean(), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_sums_that_are_not_finite_keep_a_basis_of_activations(value):
    x, basis = draw("activations", 2)
    x, basis = x.copy(), basis * np.float32(1.1)
    x.flat[5] = value
    new = ops.convert_to_numpy(lq_math.fit_basis(x, basis, "activations"))
    np.testing.assert_array_equal(new, basis)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite_shows_in_the_basis_of_its_channel(value):
    x, basis = draw("weights", 2)
    x, basis = x.copy(), basis * np.float32(1.1)
    x[0, 0, 0, 5] = value
    new = ops.convert_to_numpy(lq_math.fit_basis(x, basis, "weights"))
    assert np.isnan(new[:, 5]).all()
    assert np.isfinite(new[:, :5]).all() and np.isfinite(new[:, 6:]).all()
    assert (new[:, 6] != basis[:, 6]).all()


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    x, basis = draw("activations", 2)
    whole = lq_math.statistics(x, basis, "activations")
    parts = [lq_math.statistics(part, basis, "activations") for part in (x[:1], x[1:])]
    for index, value in enumerate(whole):
        np.testing.assert_allclose(parts[0][index] + parts[1][index], value, atol=2e-3)


def test_no_tensor_of_levels_times_elements():
    """The largest intermediate of eight bits is no larger than x."""
    import tensorflow as tf

    x = tf.zeros((4, 16, 16, 32))
    basis = tf.constant(lq_math.initial_basis("weights", 8, 9)[:, None] + tf.zeros(32))
    for function in (lq_math.quantize, lq_math.fit_basis):
        graph = tf.function(function).get_concrete_function(x, basis, "weights").graph
        graphs = [
            graph,
            *(f.graph for f in graph._functions.values() if hasattr(f, "graph")),
        ]
        sizes = [
            output.shape.num_elements()
            for g in graphs
            for op in g.get_operations()
            for output in op.outputs
            if output.shape.num_elements() is not None
        ]
        # Codes and levels of all channels (8 x 256 x 32) are the rest.
        assert max(sizes) <= max(4 * 16 * 16 * 32, 8 * 256 * 32)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: lq_math.codes(9, "weights"), "from 1 to 8. Received: bits=9"),
        (lambda: lq_math.codes(True, "weights"), "Received: bits=True"),
        (lambda: lq_math.codes(2, "biases"), "Received: kind='biases'"),
        (
            lambda: lq_math.quantize(np.zeros((2, 3)), np.zeros((2, 4)), "weights"),
            r"\(1..8, 3\) for these weights. Received: x.shape=\(2, 3\)",
        ),
        (
            lambda: lq_math.fit_basis(np.zeros(3), np.zeros((2, 3)), "activations"),
            r"basis.shape=\(2, 3\)",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_gradient_is_the_same_under_mixed_precision():
    x = keras.ops.cast(draws.activations(2, 1), "float16")
    basis = lq_math.initial_basis("activations", 2)[:, None]
    wide = keras.ops.cast(x, "float32")
    top = float(basis.sum())
    ones = np.ones(wide.shape, "float32")
    np.testing.assert_array_equal(
        gradient(wide, basis, "activations", ones), np.asarray(wide) <= top
    )

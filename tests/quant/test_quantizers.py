"""The quantizers' bases: their start, their moving average, their rows."""

import keras
import numpy as np
import pytest
from keras import ops

from quant import lq_math
from quant import quantizers
from tests import golden
from tests.quant import draws


def run(quantizer, draw, step, bits, **options):
    x = draw(step) if quantizer.kind == "weights" else draw(bits, step)
    return x, ops.convert_to_numpy(quantizer(x, **options))


def make(kind, bits, **options):
    if kind == "weights":
        return quantizers.LQWeightQuantizer(bits, **options), draws.weights
    return quantizers.LQActivationQuantizer(bits, **options), draws.activations


@pytest.mark.parametrize("zero_debias", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_moving_average_follows_the_reference(kind, bits, zero_debias):
    file = golden.arrays(f"lq_{draws.FILES[kind]}_bit{bits}.npz")
    quantizer, draw = make(kind, bits, zero_debias=zero_debias)
    prefix = "" if zero_debias else "plainEMA_"
    for step in range(1, 6):
        _, y = run(quantizer, draw, step, bits, update="fit")
        if f"{prefix}y{step}" in file:
            np.testing.assert_allclose(y, file[f"{prefix}y{step}"], atol=1e-5)
        np.testing.assert_allclose(
            quantizer.basis[0], file[f"{prefix}basis{step}"], atol=1e-5
        )


@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_output_is_that_of_the_basis_before_the_update(kind):
    quantizer, draw = make(kind, 2)
    x, first = run(quantizer, draw, 1, 2, update="fit")
    fresh, _ = make(kind, 2)
    np.testing.assert_array_equal(fresh(x), first)
    assert (ops.convert_to_numpy(quantizer(x)) != first).any()


@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_without_an_update_nothing_changes(kind):
    quantizer, draw = make(kind, 2)
    run(quantizer, draw, 1, 2, update="fit")
    before = [np.array(w) for w in quantizer.weights]
    run(quantizer, draw, 2, 2)
    for old, new in zip(before, quantizer.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_collected_tensors_are_fitted_as_one():
    x = draws.activations(2, 1)
    whole, parts = (quantizers.LQActivationQuantizer(2) for _ in range(2))
    whole(x, update="fit")
    parts(x[:3], update="collect")
    assert float(parts.fits[0]) == 0
    parts(x[3:], update="fit")
    np.testing.assert_allclose(parts.basis, whole.basis, rtol=1e-5)
    assert all(not np.array(total).any() for total in parts.collected)


def test_rows_are_private():
    quantizer = quantizers.LQActivationQuantizer(2, rows=3)
    x = draws.activations(2, 1)
    quantizer(x, row=1, update="fit")
    alone = quantizers.LQActivationQuantizer(2)
    alone(x, update="fit")
    initial = lq_math.initial_basis("activations", 2)[:, None]
    np.testing.assert_allclose(quantizer.basis[0], initial)
    np.testing.assert_allclose(quantizer.basis[1], alone.basis[0], rtol=1e-6)
    np.testing.assert_allclose(quantizer.basis[2], initial)
    np.testing.assert_array_equal(quantizer.fits, [0, 1, 0])
    np.testing.assert_array_equal(quantizer(x, row=1), alone(x))


def test_row_between_two_is_their_mixture():
    quantizer = quantizers.LQActivationQuantizer(2, rows=2)
    quantizer.build((None, 4))
    first, second = np.array([[[0.2], [0.5]], [[0.4], [0.9]]], "float32")
    quantizer.basis.assign(np.stack([first, second]))
    x = draws.activations(2, 1)
    mixed = quantizer(x, row=(0, 1, 0.25))
    np.testing.assert_allclose(
        mixed, lq_math.quantize(x, 0.25 * first + 0.75 * second, "activations")
    )
    with pytest.raises(ValueError, match="`row` as an int. Received: row=\\(0, 1"):
        quantizer(x, row=(0, 1, 0.25), update="fit")
    with pytest.raises(ValueError, match="shared collects. Received: .* rows=2"):
        quantizer(x, row=1, update="collect")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_quantized_in_float32(dtype):
    x = ops.cast(draws.activations(2, 1), dtype)
    quantizer = quantizers.LQActivationQuantizer(2)
    y = quantizer(x, update="fit")
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    wide = quantizers.LQActivationQuantizer(2)
    expected = wide(ops.cast(x, "float32"), update="fit")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(y, "float32")),
        ops.convert_to_numpy(ops.cast(ops.cast(expected, dtype), "float32")),
    )
    np.testing.assert_array_equal(quantizer.basis, wide.basis)
    assert all(w.dtype == "float32" for w in quantizer.weights)


@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_averages_come_back_with_a_saved_layer(kind, tmp_path):
    quantizer, draw = make(kind, 2)
    run(quantizer, draw, 1, 2, update="fit")
    x = draw(2) if kind == "weights" else draw(2, 2)
    copy = type(quantizer).from_config(quantizer.get_config())
    copy.build(x.shape)
    copy.set_weights(quantizer.get_weights())
    for layer in (quantizer, copy):
        layer(x, update="fit")
    np.testing.assert_array_equal(copy.basis, quantizer.basis)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: quantizers.LQWeightQuantizer(0), "from 1 to 8. Received: bits=0"),
        (lambda: quantizers.LQWeightQuantizer(2.0), "Received: bits=2.0"),
        (lambda: quantizers.LQWeightQuantizer(2, 1.0), "Received: momentum=1.0"),
        (lambda: quantizers.LQActivationQuantizer(2, rows=0), "Received: rows=0"),
        (
            lambda: quantizers.LQWeightQuantizer(2)(np.ones((2, 2)), update="now"),
            "`update` must be one of .*Received: update='now'",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(call, text):
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.9999])
def test_a_settled_basis_does_not_jump(momentum):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 8, 4)).astype("float32")
    quantizer = quantizers.LQWeightQuantizer(2, momentum=momentum)
    quantizer(kernel)
    before = np.array(quantizer.basis)[0]
    quantizer.settle()
    quantizer(kernel, update="fit")
    fitted = np.array(lq_math.fit_basis(kernel, before, "weights"))
    expected = momentum * before + (1 - momentum) * fitted
    np.testing.assert_allclose(np.array(quantizer.basis)[0], expected, rtol=1e-5)


def test_a_basis_with_nan_shows_in_every_output():
    # It stops a run, whose loss must be finite; `pack` and `lqnet_import` refuse it.
    for quantizer, x in (
        (quantizers.LQWeightQuantizer(2), np.ones((3, 3, 2, 4), "float32")),
        (quantizers.LQActivationQuantizer(2), np.ones((2, 3, 3, 4), "float32")),
    ):
        quantizer(x)
        quantizer.basis.assign(np.full(quantizer.basis.shape, np.nan))
        for update in ("fit", None):
            assert np.isnan(np.array(quantizer(x, update=update))).all()

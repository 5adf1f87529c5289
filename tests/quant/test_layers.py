"""Quantized layers against the stock layers that they derive from."""

import keras
import numpy as np
import pytest
from keras import ops

from quant import layers as quant_layers
from quant import lq_math
from quant import quantizers

LAYERS = {
    "conv": (
        quant_layers.QuantConv2D,
        keras.layers.Conv2D,
        {"filters": 6, "kernel_size": 3, "strides": 2, "activation": "relu"},
        (2, 9, 9, 4),
    ),
    "conv_without_bias": (
        quant_layers.QuantConv2D,
        keras.layers.Conv2D,
        {"filters": 6, "kernel_size": 1, "use_bias": False, "padding": "same"},
        (2, 5, 5, 4),
    ),
    "depthwise": (
        quant_layers.QuantDepthwiseConv2D,
        keras.layers.DepthwiseConv2D,
        {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"},
        (2, 6, 6, 4),
    ),
    "dense": (
        quant_layers.QuantDense,
        keras.layers.Dense,
        {"units": 7, "activation": "tanh"},
        (3, 5),
    ),
}


def pair(name, quantizer):
    """(quantized layer, stock layer with the same weights, input)."""
    quantized, stock, options, shape = LAYERS[name]
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    layer, plain = quantized(weight_quantizer=quantizer, **options), stock(**options)
    layer.build(shape)
    plain.build(shape)
    for index, weight in enumerate(plain.weights):
        value = np.random.default_rng(index).standard_normal(weight.shape)
        weight.assign(value)
        layer.weights[index].assign(value)
    return layer, plain, x


@pytest.mark.parametrize("name", LAYERS)
def test_no_quantizer_is_the_stock_layer(name):
    layer, plain, x = pair(name, None)
    np.testing.assert_array_equal(layer(x), plain(x))
    assert len(layer.weights) == len(plain.weights)
    assert layer.compute_output_shape(x.shape) == plain.compute_output_shape(x.shape)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_computes_with_the_levels_of_its_kernel(name):
    layer, plain, x = pair(name, quantizers.LQWeightQuantizer(2))
    kernel = ops.convert_to_numpy(layer.quantized_kernel())
    # A basis for each output channel, also of a depthwise convolution.
    channels = 8 if name == "depthwise" else kernel.shape[-1]
    assert layer.weight_quantizer.basis.shape == (1, 2, channels)
    assert all(len(np.unique(column)) <= 4 for column in kernel.reshape(-1, channels).T)
    plain.weights[0].assign(kernel)
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_goes_straight_through_to_the_kernel(name):
    import tensorflow as tf

    layer, plain, x = pair(name, quantizers.LQWeightQuantizer(2))
    plain.weights[0].assign(layer.quantized_kernel())
    found = []
    for each in (layer, plain):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(each(x)))
        found.append(tape.gradient(loss, each.weights[0].value))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_in_a_graph_is_that_of_one_without(name):
    import tensorflow as tf

    def step(layer, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(x, update="fit")))
        variable = layer.weights[0].value
        variable.assign_sub(0.01 * tape.gradient(loss, variable))
        return loss

    found = []
    for run in (step, tf.function(step)):
        layer, _, x = pair(name, quantizers.LQWeightQuantizer(2))
        before = layer.get_weights()
        found.append([run(layer, tf.constant(x)), *layer.get_weights()])
        assert not np.array_equal(found[-1][1], before[0])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_comes_back_from_its_configuration(name):
    layer, _, x = pair(name, quantizers.LQWeightQuantizer(3, momentum=0.8))
    layer(x, update="fit")
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.built  # with the shape of its input
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(x), layer(x))
    assert copy.weight_quantizer.momentum == 0.8


def test_half_precision_rounds_the_levels_and_not_the_kernel():
    layer, plain, x = pair("conv", quantizers.LQWeightQuantizer(2))
    config = {**layer.get_config(), "dtype": "mixed_float16"}
    half = quant_layers.QuantConv2D.from_config(config)
    half.build(x.shape)
    half.set_weights(layer.get_weights())
    half(x, update="fit")
    layer(x, update="fit")
    np.testing.assert_array_equal(
        half.weight_quantizer.basis, layer.weight_quantizer.basis
    )
    assert half.kernel.dtype == "float32"
    assert keras.backend.standardize_dtype(half(x).dtype) == "float16"
    np.testing.assert_allclose(half(x), layer(x), rtol=1e-2, atol=1e-2)


def test_all_zero_channel_stays_defined():
    layer, _, x = pair("conv", quantizers.LQWeightQuantizer(2))
    kernel = np.array(layer.kernel)
    kernel[..., 1] = 0
    layer.kernel.assign(kernel)
    for _ in range(5):
        y = layer(x, update="fit")
    assert np.isfinite(y).all()
    zero = ops.convert_to_numpy(layer.quantized_kernel())[..., 1]
    assert np.abs(zero).max() < 1e-3


@pytest.mark.parametrize("name", LAYERS)
def test_fitted_basis_is_better_than_the_initial_one(name):
    layer, _, _ = pair(name, quantizers.LQWeightQuantizer(2))
    kernel = np.array(layer.kernel)
    flat = kernel.reshape(-1, layer.weight_quantizer.basis.shape[-1])

    def error(basis):
        return np.square(flat - lq_math.quantize(flat, basis, "weights")).sum()

    assert error(layer.fitted_basis(kernel)) < error(layer.weight_quantizer.basis[0])

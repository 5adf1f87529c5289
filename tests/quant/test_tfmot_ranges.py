"""The layers around tfmot's 8-bit quantizers, and what they are for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from quant import layers as quant_layers
from quant import tfmot as bridge


def images(count=64):
    x = np.random.default_rng(0).standard_normal((count, 10, 10, 3)).astype("float32")
    return x, (x[..., 0].mean((1, 2)) > 0).astype("int64")


def normal(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal(shape).astype("float32")


def assert_on_grid(y, scale, zero_point, bits, narrow=False):
    """y lies on the integers that `affine` promises."""
    n = np.asarray(y) / scale + zero_point
    np.testing.assert_allclose(n, np.round(n), atol=0.01)
    n = np.round(n)
    least = -(2 ** (bits - 1)) + narrow
    assert least <= n.min() and n.max() <= 2 ** (bits - 1) - 1


def test_range_is_the_moving_average_that_tfmot_documents():
    quantizer = bridge.RangeQuantizer()
    low, high = -6.0, 6.0
    for step in range(20):
        x = (step - 5) * normal(4, 5, 6, seed=step) + step
        y = quantizer(x, update="fit" if step % 2 else "collect")
        low += 0.001 * (min(x.min(), 0) - low)
        high += 0.001 * (max(x.max(), 0) - high)
        found = [float(quantizer.range[key]) for key in ("min_var", "max_var")]
        np.testing.assert_allclose(found, (low, high), rtol=1e-5)
        # Quantized with the new range.
        np.testing.assert_array_equal(y, quantizer(x))
        assert [float(quantizer.range[k]) for k in ("min_var", "max_var")] == found


@pytest.mark.parametrize("bits", [4, 8])
def test_activations_lie_on_the_integers_of_their_range(bits):
    quantizer = bridge.RangeQuantizer(bits)
    quantizer.build((None,))
    x = np.linspace(-30, 30, 60001, dtype="float32")
    for seed in range(20):
        low, high = 0.5 + np.random.default_rng(seed).exponential(3, 2)
        quantizer.range["min_var"].assign(-low)
        quantizer.range["max_var"].assign(high)
        scale, zero_point = quantizer.affine()
        assert scale == pytest.approx((low + high) / (2**bits - 1), rel=1e-6)
        y = ops.convert_to_numpy(quantizer(x))
        assert_on_grid(y, scale, zero_point, bits)
        assert len(np.unique(y)) == 2**bits
        inside = (x > -low + scale) & (x < high - scale)
        assert np.abs(y - x)[inside].max() <= scale / 2 + 1e-5


def test_fixed_range_takes_uint8_images_as_they_are():
    image = np.arange(256, dtype="float32") / 255
    quantizer = bridge.RangeQuantizer(initial_range=(0, 1))
    np.testing.assert_allclose(quantizer(image), image, atol=1e-7)
    assert quantizer.affine() == (pytest.approx(1 / 255), -128)


def test_gradient_passes_within_the_range():
    x = tf.constant([-7.0, -5.0, 0.0, 5.0, 7.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = bridge.RangeQuantizer()(x, update="fit")
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 1, 0])


def test_an_overflow_does_not_spoil_the_range():
    quantizer = bridge.RangeQuantizer()
    quantizer(np.array([np.inf, -1.0, np.nan], "float32"), update="fit")
    low, high = (float(v) for v in quantizer.range.values())
    assert -6 <= low < -5.9 and high == 6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_quantized_in_float32(dtype, policy):
    policy(f"mixed_{dtype}")
    x = normal(50)
    quantizer = bridge.RangeQuantizer()
    y = quantizer(ops.cast(x, dtype), update="fit")
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert {w.dtype for w in quantizer.weights} == {"float32"}
    kernel = bridge.RangeWeightQuantizer()(normal(5, 7))
    assert keras.backend.standardize_dtype(kernel.dtype) == "float32"


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 8, 4096), (64, 48)])
def test_kernels_are_rounded_to_255_values(shape, jit):
    kernel = normal(*shape) * np.linspace(0.1, 2, shape[-1], dtype="float32")
    kernel[..., 3] = 0  # XLA makes NaN of a range of width 0
    quantizer = bridge.RangeWeightQuantizer()
    upstream = normal(*shape, seed=1)

    @tf.function(jit_compile=jit)
    def run(kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = quantizer(kernel)
        return y, tape.gradient(y, kernel, upstream)

    y, gradient = (np.array(v) for v in run(tf.constant(kernel)))
    # A convolution has a scale for each channel, a dense kernel one, as .tflite files.
    scale = np.abs(kernel).max(axis=(0, 1, 2) if len(shape) == 4 else None) / 127
    assert (np.abs(y - kernel) <= 0.5001 * scale + 1e-9).all()
    found, zero_point = quantizer.affine(kernel)
    assert zero_point == 0
    np.testing.assert_allclose(found, scale, rtol=1e-5, atol=1e-12)
    assert_on_grid(y, found, 0, 8, narrow=True)
    # Also that of the largest weight, which ends the range.
    np.testing.assert_array_equal(gradient, upstream)


def network():
    def conv(activation):
        return quant_layers.QuantConv2D(
            8,
            3,
            padding="same",
            activation=activation,
            weight_quantizer=bridge.RangeWeightQuantizer(),
        )

    keras.utils.set_random_seed(0)
    image = keras.Input((10, 10, 3))
    x = bridge.RangeQuantizer(initial_range=(-4, 4))(image)
    x = bridge.RangeQuantizer(initial_range=(0, 4))(conv("relu")(x))
    y = bridge.RangeQuantizer(name="branch")(conv(None)(x))
    x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = bridge.RangeQuantizer()(x)
    x = bridge.RangeQuantizer()(keras.layers.GlobalAveragePooling2D()(x))
    head = quant_layers.QuantDense(2, weight_quantizer=bridge.RangeWeightQuantizer())
    return keras.Model(image, bridge.RangeQuantizer()(head(x)))


class Tracking(keras.Model):
    """A network whose range moves with each step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = quant_layers.QuantConv2D(
            8, 3, weight_quantizer=bridge.RangeWeightQuantizer()
        )
        self.range = bridge.RangeQuantizer()
        self.head = quant_layers.QuantDense(
            2, weight_quantizer=bridge.RangeWeightQuantizer()
        )

    def build(self, shape):
        self.conv.build(shape)
        self.range.build(None)
        self.head.build((None, 8))

    def call(self, x, training=None):
        update = "fit" if training else None
        x = self.range(ops.relu(self.conv(x, update=update)), update=update)
        return self.head(ops.mean(x, axis=(1, 2)))


def test_network_with_ranges_comes_back_and_learns_on_as_if_never_saved(tmp_path):
    keras.utils.set_random_seed(0)
    model, (x, labels) = Tracking(), images()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss)
    losses = model.fit(x, labels, epochs=20, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert -6 < float(model.range.range["min_var"]) < -5.7
    model.save(tmp_path / "model.keras")
    scope = {"Tracking": Tracking}
    copy = keras.saving.load_model(tmp_path / "model.keras", custom_objects=scope)
    np.testing.assert_array_equal(copy(x), model(x))
    first, second = (
        each.fit(x, labels, epochs=2, shuffle=False, verbose=0).history["loss"]
        for each in (model, copy)
    )
    assert first == second
    np.testing.assert_array_equal(
        *([float(v) for v in each.range.range.values()] for each in (model, copy))
    )


def test_functional_network_comes_back_with_its_configuration(tmp_path):
    model, (x, _) = network(), images(4)
    model.get_layer("branch").range["max_var"].assign(3.5)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(copy(x), model(x))
    for layer, other in zip(model.layers, copy.layers, strict=True):
        pair = [getattr(each, "weight_quantizer", each) for each in (layer, other)]
        assert pair[0].get_config() == pair[1].get_config()


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_ranges_make_an_integer_only_file_that_computes_the_same(tmp_path):
    model, (x, _) = network(), images(4)
    model.export(tmp_path / "export", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "export"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs[0]["index"], x)
    interpreter.invoke()
    y = interpreter.get_tensor(outputs[0]["index"])
    step, _ = model.layers[-1].affine()
    assert np.abs(y - model.predict(x, verbose=0)).max() <= 1.01 * step
    # Input and output; between them everything has an integer type.
    details = interpreter.get_tensor_details()
    floats = {d["index"] for d in details if d["dtype"] == np.float32 and d["name"]}
    assert floats == {inputs[0]["index"], outputs[0]["index"]}


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: bridge.RangeQuantizer(1), "from 2 to 16. Received: bits=1"),
        (lambda: bridge.RangeWeightQuantizer(8.0), "Received: bits=8.0"),
        (
            lambda: bridge.RangeQuantizer(initial_range=(1, 2)),
            r"around 0. Received: initial_range=\(1, 2\)",
        ),
        (lambda: bridge.RangeQuantizer(8, 5), "Received: initial_range=5"),
        (
            lambda: bridge.RangeQuantizer(8, ("a", "b")),
            r"Received: initial_range=\('a'",
        ),
        (lambda: bridge.RangeQuantizer(8, (-1, np.inf)), "two different numbers"),
        (
            lambda: bridge.RangeQuantizer()(np.ones(2), update="now"),
            "`update` must be one of .*Received: update='now'",
        ),
        (
            lambda: bridge.RangeWeightQuantizer()(np.ones((2, 2)), update="now"),
            "Received: update='now'",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(call, text):
    with pytest.raises(ValueError, match=text):
        call()


# What Keras says of every such layer when it is loaded.
@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer 'rounded'")
def test_a_layer_without_a_build_of_its_own_may_hold_a_range(tmp_path):
    @keras.saving.register_keras_serializable(package="test")
    class Rounded(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(3)
            self.rounded = bridge.RangeQuantizer(8)

        def call(self, x):
            return self.dense(self.rounded(x))

    model = keras.Sequential([keras.Input((4,)), Rounded()])
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_array_equal(copy(x), model(x))

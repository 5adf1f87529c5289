"""Integer-only files compute what the network computes, but for the rounding."""

import types

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from quant import lq_math
from rs_keras.export import calibration
from rs_keras.export import flatbuffer
from rs_keras.export import integer
from rs_keras.export import size
from rs_keras.export import staircase
from rs_keras.export import tflite
from rs_keras.export import weight_sharing
from tests.export import test_saved_model

KINDS = test_saved_model.KINDS
# Eight bits in five layers; measured 0.02 at most.
TOLERANCE = 0.05


def converted(model, batch, precision, **options):
    images = {r: batch(24, r, seed=5)[0] for r in model.resolutions}
    return tflite.convert(model, "signatures", precision, calibration=images, **options)


def outputs(data, key, images, name="logits"):
    """What a signature gives, as float, one image after the other."""
    run = litert.Interpreter(model_content=data).get_signature_runner(key)
    scale, zero_point = run.get_output_details()[name]["quantization"]
    found = [np.array(run(image=image[None])[name]) for image in images]
    return scale * (np.concatenate(found).astype("float32") - zero_point)


def errors(model, data, resolution, images):
    """Of each image's logits, relative to their norm."""
    expected = model(images, resolution=resolution).numpy()
    found = outputs(data, f"r{resolution}", images)
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


def parsed(graph):
    """The `ModelT` of a function, whose signature is called r0."""
    nothing = types.SimpleNamespace(variables=[])
    return flatbuffer.read(tflite.stock(nothing, {"r0": graph.get_concrete_function()}))


@pytest.mark.parametrize(
    "kind, precision",
    [
        ("float", "int8"),
        ("imagenet", "int8"),
        ("w2a32", "int8"),
        ("w2a2", "lq"),
        ("private", "lq"),
    ],
)
def test_integer_files_compute_what_the_network_computes(kind, precision, tiny, batch):
    model = test_saved_model.spread(tiny(**KINDS[kind]))
    data, report = converted(model, batch, precision)
    for resolution in model.resolutions:
        images = batch(16, resolution)[0]
        assert np.median(errors(model, data, resolution, images)) < TOLERANCE
        logits = model(images, resolution=resolution)
        found = outputs(data, f"r{resolution}", images, "probabilities")
        # 1/256 is the step of a softmax.
        np.testing.assert_allclose(found, tf.nn.softmax(logits), atol=0.05)
    dtypes = {
        flatbuffer.dtype(tensor)
        for graph in flatbuffer.read(data).subgraphs
        for tensor in graph.tensors
    }
    assert dtypes <= {"uint8", "int8", "int32"}
    assert report["kernels"]["copies"] == []
    if precision == "lq":
        # A quarter of what rounding to 1/254 can cost; 0 where levels fit.
        assert report["kernels"]["level_error"] < 1e-3


def test_a_network_trained_with_integers_is_exported_as_it_is(tiny, batch):
    """All its tensors are rounded in training: only sums at a threshold may differ."""
    model = test_saved_model.spread(tiny(**KINDS["rest8"]))
    data, _ = converted(model, batch, "lq")
    found = np.concatenate(
        [errors(model, data, r, batch(24, r)[0]) for r in model.resolutions]
    )
    assert np.mean(found < 1e-5) > 0.4
    assert np.median(found) < 0.02


def test_low_bit_kernels_with_float_activations_stay_in_float(tiny, batch):
    model = test_saved_model.spread(tiny(bits=(2, 32)))
    exact, report = tflite.convert(model, "signatures", "lq")
    assert report["kernels"]["level_error"] < 1e-3
    images = batch(8)[0]
    run = litert.Interpreter(model_content=exact).get_signature_runner("r64")
    assert run.get_input_details()["image"]["dtype"] == np.float32
    assert run.get_output_details()["logits"]["dtype"] == np.float32
    expected = model(images, resolution=64).numpy()
    found = np.concatenate(
        [np.array(run(image=i[None].astype("f"))["logits"]) for i in images]
    )
    # What is left is the rounding of the first convolution and of the head.
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_kernels_are_stored_once(tiny, batch):
    model = test_saved_model.spread(tiny())
    all_of_them, _ = converted(model, batch, "int8")
    one, _ = converted(model, batch, "int8", resolutions=(64,))
    kinds = [size.bytes_by_kind(data) for data in (all_of_them, one)]
    assert kinds[0]["kernels"] == kinds[1]["kernels"]
    assert kinds[0]["biases"] < 3.1 * kinds[1]["biases"]


def test_a_dead_channel_is_its_constant(tiny, batch):
    """gamma = 0, or so small that its bias in units of its scale overflows."""
    model = test_saved_model.spread(tiny())
    (gamma,) = [w for w in model.weights if w.path.endswith("branch1_norm/gamma")]
    (beta,) = [w for w in model.weights if w.path.endswith("branch1_norm/beta")]
    values, offsets = np.array(gamma), np.array(beta)
    values[:, :4] = [[0, 1e-9, -1e-7, 1e-6]] * 3
    values[1, 4] = 0  # at one resolution
    offsets[:, :5] = [[2, 2, 1.5, 1, 1]] * 3
    gamma.assign(values)
    beta.assign(offsets)
    data, report = converted(model, batch, "int8")
    for resolution in model.resolutions:
        found = errors(model, data, resolution, batch(16, resolution)[0])
        assert np.median(found) < TOLERANCE
    assert report["kernels"]["copies"] == []


@pytest.mark.parametrize("layers", ["branch1_norm", "norm"])
def test_tensors_that_are_always_zero_have_a_scale(layers, tiny, batch):
    """Behind a ReLU that nothing passes: one tensor, or all of them."""
    model = test_saved_model.spread(tiny())
    for weight in model.weights:
        if weight.path.endswith("norm/beta") and layers in weight.path:
            weight.assign(np.full(weight.shape, -100.0))
    model.head.bias.assign(np.arange(6))
    data, _ = converted(model, batch, "int8")
    for resolution in model.resolutions:
        images = batch(8, resolution)[0]
        assert np.median(errors(model, data, resolution, images)) < TOLERANCE


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_steps_give_the_level_of_every_code(bits):
    """All 256 values of a pixel, through a quantizer and a convolution that copies."""
    basis = np.array([[0.31], [0.74], [1.5]][:bits], "float32")

    @tf.function(input_signature=[tf.TensorSpec((1, 16, 16, 3), "float32", "image")])
    def graph(image):
        levels = lq_math.quantize(image * (3 / 255), basis, "activations")
        kernel = tf.constant(np.eye(3, dtype="float32")[None, None])
        return {"logits": tf.nn.conv2d(levels, kernel, 1, "VALID")}

    key, model = "r0", parsed(graph)
    pixels = np.arange(256).reshape(1, 16, 16, 1) * np.ones((1, 1, 1, 3))
    ranges = calibration.ranges(flatbuffer.write(model), {key: pixels.astype("f")})
    (found,) = staircase.find(model, model.subgraphs[0]).values()
    assert len(found.thresholds) == 2**bits - 1
    report = integer.make_integer(model, weight_sharing.find(model), ranges, book=True)
    data = flatbuffer.write(model)
    integers = outputs(data, key, pixels.astype("uint8"))[0, :, :, 0].ravel()
    expected = graph(tf.constant(pixels, "float32"))["logits"].numpy()[0, :, :, 0]
    # Two roundings to codes: of the levels, and of the output.
    top = basis.sum()
    assert report["level_error"] < 1 / 255
    np.testing.assert_allclose(integers, expected.ravel(), atol=1.5 * top / 255)


def test_ranges_are_those_of_the_images(tiny, batch):
    model = test_saved_model.spread(tiny())
    data, _ = tflite.convert(model, "signatures", "float32")
    images = {f"r{r}": batch(6, r)[0].astype("f") for r in model.resolutions}
    found = calibration.ranges(data, images)
    for signature in flatbuffer.read(data).signatureDefs:
        key = signature.signatureKey.decode()
        logits = model(images[key], resolution=int(key[1:])).numpy()
        (index,) = [e.tensorIndex for e in signature.outputs if e.name == b"logits"]
        np.testing.assert_allclose(
            found[key][index], (logits.min(), logits.max()), rtol=1e-4
        )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"precision": "lq"}, "lq is for networks trained with --weight_bits"),
        ({"precision": "int8", "calibration": None}, "int8 needs `calibration` images"),
        (
            {"precision": "int8", "input_dtype": "float32"},
            "integer-only files is uint8",
        ),
    ],
)
def test_refusals(options, message, tiny, batch):
    model = tiny()
    images = {r: batch(1, r)[0] for r in model.resolutions}
    with pytest.raises(ValueError, match=message) as error:
        tflite.convert(model, "signatures", **{"calibration": images, **options})
    assert "Received: " in str(error.value)


def test_activations_of_more_bits_than_there_are_steps_for_are_refused(tiny):
    for precision in ("int8", "lq"):
        with pytest.raises(ValueError) as error:
            tflite.convert(tiny(bits=(2, 5)), "signatures", precision)
        assert str(error.value) == (
            "int8 and lq are for activations of up to 4 bits, or of 32. "
            "Received: tiny with 5"
        )


def test_what_stands_between_a_product_and_a_sum_is_kept(batch):
    """max(x * a, 0) + b is no multiple of x plus something."""
    draw = np.random.default_rng(0).normal
    kernel, factor, offset = (
        tf.constant(draw(size=s).astype("f")) for s in ((3, 3, 3, 8), (8,), (8,))
    )

    @tf.function(input_signature=[tf.TensorSpec((1, 16, 16, 3), "float32", "image")])
    def graph(image):
        x = tf.nn.relu(tf.nn.conv2d(image / 255, kernel, 2, "VALID"))
        x = tf.nn.relu(x * factor) + offset
        return {"logits": tf.reduce_mean(x, axis=(1, 2))}

    model = parsed(graph)
    images = batch(8, 16)[0]
    ranges = calibration.ranges(flatbuffer.write(model), {"r0": images.astype("f")})
    integer.make_integer(model, weight_sharing.find(model), ranges)
    found = outputs(flatbuffer.write(model), "r0", images)
    expected = [graph(tf.constant(i[None], "float32"))["logits"][0] for i in images]
    error = np.linalg.norm(found - np.array(expected)) / np.linalg.norm(expected)
    assert error < TOLERANCE


def test_an_operator_without_a_rule_is_named():
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), "float32", "image")])
    def graph(image):
        return {"logits": tf.reduce_max(tf.exp(image / 255), axis=(1, 2))}

    key, model = "r0", parsed(graph)
    images = {key: np.zeros((1, 8, 8, 3), "float32")}
    ranges = calibration.ranges(flatbuffer.write(model), images)
    with pytest.raises(ValueError, match="Received: EXP, in"):
        integer.make_integer(model, [], ranges)

"""A .tflite file gives at every resolution what the network gives."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from rs_keras.export import flatbuffer
from rs_keras.export import size
from rs_keras.export import tflite
from rs_keras.export import verify
from tests.export import files
from tests.export import test_saved_model as saved

# float32: roundings of a few layers, as for a SavedModel. The others round kernels;
# what they may cost is what a file is refused for.
TOLERANCES = {**verify.TOLERANCES, "float32": saved.TOLERANCE}
# Of networks of any bits; lq, of low ones, is tested with the other integers.
PAIRS = [
    (layout, precision)
    for layout, precisions in tflite.LAYOUTS.items()
    for precision in precisions
    if precision != "lq"
]
KERNEL_BYTES = {"float32": 4, "float16": 2, "int8_weights": 1, "int8": 1}
# Every kind of network, and every layout in every precision; the others are slow.
COVER = {
    ("float", "signatures", "float16"),
    ("float", "signatures", "int8"),
    ("float", "dynamic", "int8_weights"),
    ("shared_bn", "signatures", "float32"),
    ("one", "signatures", "int8_weights"),
    ("one", "dynamic", "float16"),
    ("imagenet", "signatures", "int8_weights"),
    ("imagenet", "dynamic", "float32"),
    ("w2a32", "dynamic", "float16"),
    ("w2a2", "signatures", "int8_weights"),
    ("w2a2", "dynamic", "float32"),
    ("private", "signatures", "float32"),
    ("private", "dynamic", "int8_weights"),
    ("largest", "signatures", "float16"),
    ("rest8", "dynamic", "int8_weights"),
}
CASES = [
    pytest.param(*case, marks=() if case in COVER else pytest.mark.slow)
    for case in ((kind, *pair) for kind in saved.KINDS for pair in PAIRS)
]
# (sides of an image, round(sqrt(H * W))): between two trained resolutions, one of them
# though not square, above all, and the smallest that the network takes.
SIZES = (((50, 60), 55), ((36, 64), 48), ((90, 70), 79), ((32, 32), 32))


@pytest.fixture(scope="module")
def network(tiny):
    return saved.spread(tiny(class_names=["a", "b ö", "c", "d", "e", "f"]))


@pytest.fixture(scope="module")
def float32(network):
    """{layout: (bytes, report)} of the network."""
    return {layout: tflite.convert(network, layout) for layout in tflite.LAYOUTS}


def _assert_only_what_runtimes_know(data):
    """No TensorFlow operator, none of our own, and no integer below eight bits."""
    model = flatbuffer.read(data)
    for code in model.operatorCodes:
        assert code.customCode is None
        names = vars(flatbuffer.OPERATORS).items()
        assert "CUSTOM" not in [k for k, v in names if v == code.builtinCode]
    types = {tensor.type for graph in model.subgraphs for tensor in graph.tensors}
    known = ("FLOAT32", "FLOAT16", "INT8", "INT32", "BOOL", "UINT8")
    assert types <= {getattr(flatbuffer.TYPES, name) for name in known}


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _assert_computes(data, key, model, images, resolution, precision):
    found = files.run(data, key, images)
    expected = saved.graph(model, resolution)(tf.constant(images))
    pairs = zip(found["logits"], expected, strict=True)
    errors = [saved.error(*pair) for pair in pairs]
    # The median where kernels were rounded, for that may take an activation, or a logit
    # of eight bits, over the threshold between two levels.
    error = max(errors) if precision == "float32" else np.median(errors)
    assert error < TOLERANCES[precision]
    # float32, of numbers up to 1; int8 counts in 1/256.
    step = 1 / 256 if precision == "int8" else 1e-6
    softmax = _softmax(found["logits"].astype("float64"))
    np.testing.assert_allclose(found["probabilities"], softmax, rtol=0, atol=step)


@pytest.mark.parametrize("kind, layout, precision", CASES)
def test_a_file_computes_what_the_network_computes(
    kind, layout, precision, tiny, batch
):
    model = saved.spread(tiny(**saved.KINDS[kind]))
    before = [np.array(weight) for weight in model.weights]
    data, report = files.calibrated(model, layout, precision, batch)
    _assert_only_what_runtimes_know(data)
    for r in model.resolutions:
        key = f"r{r}" if layout == "signatures" else "serving_default"
        images = batch(4, r)[0].astype("float32")
        _assert_computes(data, key, model, images, r, precision)
    if layout == "dynamic":
        for sides, r in SIZES:
            images = batch(3, sides)[0].astype("float32")
            _assert_computes(data, "serving_default", model, images, r, precision)
    assert report["bytes_by_kind"] == size.bytes_by_kind(data)
    assert sum(report["bytes_by_kind"].values()) == len(data) == report["bytes"]
    for one, other in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_kind_layout_and_precision_is_tested_by_default():
    kinds, layouts, precisions = zip(*COVER, strict=True)
    assert set(kinds) == set(saved.KINDS)
    assert set(zip(layouts, precisions, strict=True)) == set(PAIRS)


def test_signatures_have_the_documented_names_shapes_and_types(network, float32):
    signatures = {f"r{r}": [1, r, r, 3] for r in network.resolutions}
    documented = {
        "signatures": (signatures, [1, 6]),
        "dynamic": ({"serving_default": [-1, -1, -1, 3]}, [-1, 6]),
    }
    for layout, (shapes, outputs) in documented.items():
        data, report = float32[layout]
        assert report["layout"] == layout and report["precision"] == "float32"
        assert report["resolutions"] == [64, 48, 32]
        assert report["classes"] == ["a", "b ö", "c", "d", "e", "f"]
        interpreter = litert.Interpreter(model_content=data)
        assert list(interpreter.get_signature_list()) == list(shapes)
        for key, shape in shapes.items():
            run = interpreter.get_signature_runner(key)
            inputs, found = run.get_input_details(), run.get_output_details()
            assert list(inputs) == ["image"]
            assert inputs["image"]["shape_signature"].tolist() == shape
            assert inputs["image"]["dtype"] == np.float32
            assert sorted(found) == ["logits", "probabilities"]
            for entry in found.values():
                assert entry["shape_signature"].tolist() == outputs
                assert entry["dtype"] == np.float32


def test_the_dynamic_signature_takes_batches_and_changes_of_size(
    network, float32, batch
):
    # One interpreter, as an application keeps one.
    interpreter = litert.Interpreter(model_content=float32["dynamic"][0])
    run = interpreter.get_signature_runner("serving_default")
    for n, sides, r in ((3, 64, 64), (1, 48, 48), (2, (90, 70), 79), (3, 64, 64)):
        images = batch(n, sides)[0]
        found = run(image=images.astype("float32"))["logits"]
        assert found.shape == (n, 6)
        expected = saved.graph(network, r)(tf.constant(images))
        assert saved.error(found, expected) < TOLERANCES["float32"]


@pytest.mark.parametrize("layout", tflite.LAYOUTS)
def test_bytes_of_images_give_what_their_floats_give(layout, network, float32, batch):
    data, _ = tflite.convert(network, layout, input_dtype="uint8")
    _assert_only_what_runtimes_know(data)
    for r in network.resolutions:
        key = f"r{r}" if layout == "signatures" else "serving_default"
        images = batch(2, r)[0]
        found = files.run(data, key, images)["logits"]
        same = files.run(float32[layout][0], key, images.astype("float32"))["logits"]
        np.testing.assert_array_equal(found, same)
        with pytest.raises(ValueError, match="Cannot set tensor: Got value of type F"):
            files.run(data, key, images.astype("float32"))


def test_a_file_may_hold_some_of_the_resolutions(network, batch):
    data, report = tflite.convert(network, "signatures", resolutions=(32, 64))
    assert report["resolutions"] == [64, 32]
    interpreter = litert.Interpreter(model_content=data)
    assert list(interpreter.get_signature_list()) == ["r64", "r32"]
    assert len(flatbuffer.read(data).subgraphs) == 2
    for r in (64, 32):
        images = batch(2, r)[0].astype("float32")
        _assert_computes(data, f"r{r}", network, images, r, "float32")


@pytest.mark.parametrize("precision", tflite.LAYOUTS["dynamic"])
def test_the_kernels_are_there_once(precision, network):
    elements = sum(
        np.size(weight) for weight in network.weights if weight.name == "kernel"
    )
    bytes_each = KERNEL_BYTES[precision]
    channels = sum(w.shape[1] for w in network.weights if w.name == "gamma")
    one, report = tflite.convert(network, "signatures", precision, resolutions=(64,))
    assert report["bytes_by_kind"]["kernels"] == elements * bytes_each
    for layout in tflite.LAYOUTS:
        data, report = tflite.convert(network, layout, precision)
        assert report["bytes_by_kind"]["kernels"] == elements * bytes_each
        # Beyond them, at each of two more resolutions: four float32 for each channel
        # of a normalization, and a graph of 10 operators.
        assert len(data) <= len(one) + 2 * (16 * channels + 2500)
    # In no buffer that something else uses, either.
    large = [len(b.data) for b in flatbuffer.read(data).buffers if b.data is not None]
    assert sum(n for n in large if n > 4000) <= elements * bytes_each


def test_arguments_that_no_file_can_have(network):
    def refuses(text, layout, *precision, **options):
        with pytest.raises(ValueError) as error:
            tflite.convert(network, layout, *precision, **options)
        assert str(error.value) == text

    refuses(
        "`layout` must be one of ('signatures', 'dynamic'). Received: layout='static'",
        "static",
    )
    refuses(
        "`precision` of the layout dynamic must be one of ('float32', 'float16', "
        "'int8_weights'). Received: precision='int4'",
        "dynamic",
        "int4",
    )
    refuses(
        "`input_dtype` must be one of ('float32', 'uint8'). "
        "Received: input_dtype='int8'",
        "dynamic",
        input_dtype="int8",
    )
    refuses(
        "The layout dynamic serves all resolutions; `resolutions` go with the layout "
        "signatures. Received: resolutions=(64,)",
        "dynamic",
        resolutions=(64,),
    )
    for wrong in ((64, 40), ()):
        refuses(
            "`resolutions` must be some of (64, 48, 32). "
            f"Received: resolutions={wrong}",
            "signatures",
            resolutions=wrong,
        )


def test_values_that_half_precision_has_no_room_for_are_refused(tiny):
    model = tiny()
    model.head.kernel.assign(np.full(model.head.kernel.shape, 1e5))
    with pytest.raises(ValueError) as error:
        tflite.convert(model, "dynamic", "float16")
    assert str(error.value) == (
        "float16 has no room for some parameters of the network; choose another "
        "precision. Received: values up to 1e+05"
    )


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_networks_of_half_precision_are_exported_in_float32(name, tiny, batch, policy):
    policy(name)
    model = saved.spread(tiny())
    policy("float32")
    same = saved.spread(tiny())
    same.set_weights(model.get_weights())
    data, report = tflite.convert(model, "signatures", "float32")
    for r in model.resolutions:
        images = batch(2, r)[0].astype("float32")
        _assert_computes(data, f"r{r}", same, images, r, "float32")
    images = {r: batch(8, r)[0] for r in model.resolutions}
    found = verify.verify(
        data, model, tflite.signatures_to_verify(report, images), "float32"
    )
    assert found["tolerance"] == 1e-4


def test_a_size_between_two_resolutions_is_verified_where_one_graph_serves_all():
    assert tflite.resolutions_to_verify("signatures", (64, 48, 32)) == [64, 48, 32]
    assert tflite.resolutions_to_verify("dynamic", (64, 48, 32)) == [64, 56, 48, 32]
    assert tflite.resolutions_to_verify("dynamic", (64,)) == [64]
    images = {64: "of 64", 56: "of 56"}
    for layout, keys in (
        ("signatures", ["r64", "r56"]),
        ("dynamic", ["serving_default"] * 2),
    ):
        found = tflite.signatures_to_verify({"layout": layout}, images)
        assert [(s.key, s.resolution, s.images) for s in found] == [
            (key, *pair) for key, pair in zip(keys, images.items(), strict=True)
        ]

"""One suite over everything that Keras can find by name.

A public layer, loss or optimizer that is missing from `CASES` fails a test.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import rs_keras
from rs_keras.layers import conv_bn
from rs_keras.layers import graph
from rs_keras.layers import pooling
from rs_keras.layers import preactivation
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm
from rs_keras.losses import distillation
from rs_keras.training import optimizers


def _norm(name=None):
    return switchable_norm.SwitchableBatchNormalization(
        (32, 16), momentum=0.8, epsilon=1e-4, name=name
    )


def _low_bit():
    return quantization.quantization(
        (32, 16), 1, 2, 3, activation_basis="private", options={"momentum": 0.8}
    )


def _quantized_conv_bn():
    return conv_bn.conv_bn(
        4,
        3,
        2,
        norm=_norm,
        name="conv",
        norm_name="norm",
        activation="relu",
        padding="same",
        low_bit=_low_bit(),
        output_name="quant",
    )


def _preactivation():
    low_bit = _low_bit()
    return preactivation.Preactivation(
        _norm("norm"), low_bit.of_activations("quant"), low_bit.bases
    )


def _conv_bn(strides=2):
    return conv_bn.conv_bn(
        4, 3, strides, norm=_norm, name="conv", norm_name="norm", activation="relu6"
    )


def _graph():
    operations = [
        keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv"),
        _norm("norm"),
        keras.layers.Add(name="sum"),
    ]
    tensors = [{"tensor": number} for number in range(3)]
    nodes = [(0, (tensors[0],), {}), (1, (tensors[1],), {}), (2, (tensors[1:],), {})]
    return graph.Graph(operations, nodes, output=3)


LAYERS = {
    "Graph": _graph,
    "SwitchableBatchNormalization": _norm,
    "ConvBN": _conv_bn,
    "ResidualBlock": lambda: conv_bn.ResidualBlock(
        [_conv_bn()],
        conv_bn.conv_bn(4, 1, 2, norm=_norm, name="short", norm_name="short_norm"),
        "relu",
    ),
    "ConvBN, quantized": _quantized_conv_bn,
    "Preactivation": _preactivation,
    "PoolShortcut": lambda: pooling.PoolShortcut(7, 2),
    "MaxPool": pooling.MaxPool,
    "MaxPool, same": lambda: pooling.MaxPool("same"),
    "Classifier": lambda: rs_keras.Classifier(
        [_conv_bn(), pooling.MaxPool(name="pool")],
        keras.layers.Dense(5, name="head"),
        (64, 32),
        scaling="imagenet",
        class_names="abcde",
    ),
}
OTHERS = {
    "MultiResolutionDistillation": lambda: distillation.MultiResolutionDistillation(
        "vanilla", weight=0.5, name="mine"
    ),
    "Bases": lambda: quantization.Bases((32, 16), 1, "per_resolution", "largest"),
    "SGD": lambda: optimizers.SGD(0.3, 0.8, 1e-3, nesterov=True, decay_scope="kernels"),
}
CASES = {**LAYERS, **OTHERS}
MODELS = {"Classifier"}
QUANTIZES = {"ConvBN, quantized", "Preactivation"}


def images(side=12):
    generator = np.random.default_rng(0)
    return generator.uniform(0, 2, (2, side, side, 3)).astype(np.float32)


def test_every_registered_class_has_a_case():
    rs_keras.resnet18  # noqa: B018  resolves every public name
    registered = {
        name.removeprefix("rs_keras>")
        for name in keras.saving.get_custom_objects()
        if name.startswith("rs_keras>")
    }
    assert registered == {name.partition(",")[0] for name in CASES}


def test_every_public_class_is_registered():
    for name in rs_keras.__all__:
        value = getattr(rs_keras, name)
        if isinstance(value, type):
            registered = keras.saving.get_registered_name(value)
            assert registered == f"rs_keras>{name}"


@pytest.mark.parametrize("name", CASES)
def test_configuration_survives_json(name):
    thing = CASES[name]()
    data = keras.saving.serialize_keras_object(thing)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(data)))
    assert type(copy) is type(thing)

    def plain(config):
        return json.loads(json.dumps(config, default=lambda o: o.get_config()))

    assert plain(copy.get_config()) == plain(thing.get_config())


@pytest.mark.parametrize("name", sorted(set(LAYERS) - MODELS))
def test_layer_survives_a_keras_file(name, tmp_path):
    layer = LAYERS[name]()
    inputs = keras.Input((None, None, 3))
    outputs = layer(inputs, resolution=24)
    model = keras.Model(inputs, outputs)
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(copy(images()), model(images()))
    # The resolution is part of the file.
    np.testing.assert_array_equal(copy(images()), layer(images(), resolution=24))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [False, True])
def test_layer_gives_the_same_in_a_graph(name, training):
    layer = LAYERS[name]()
    x = tf.constant(images())
    layer(x, resolution=32)
    before = layer.get_weights()
    eager = layer(x, resolution=32, training=training)
    # A quantizer's first fit replaces its basis.
    layer.set_weights(before)
    function = tf.function(
        lambda x: layer(x, resolution=32, training=training),
        input_signature=[tf.TensorSpec((None, None, None, 3))],
    )
    np.testing.assert_allclose(function(x), eager, rtol=1e-5, atol=1e-5)
    assert tuple(eager.shape) == layer.compute_output_shape(x.shape)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("mixed_bfloat16", 0.05), ("mixed_float16", 0.01)]
)
def test_layer_computes_in_half_precision_with_float32_weights(
    name, precision, tolerance, policy
):
    full = LAYERS[name]()
    expected = full(images(), resolution=32)
    policy(precision)
    half = LAYERS[name]()
    got = half(images(), resolution=32)
    half.set_weights(full.get_weights())
    got = half(images(), resolution=32)
    assert got.dtype == ("float32" if name in MODELS else half.compute_dtype)
    assert all(w.dtype in ("float32", "int32") for w in half.weights)
    scale = max(1.0, float(np.abs(expected).max()))
    # 8 (11) bits of mantissa, a few operations deep.
    near = np.isclose(tf.cast(got, "float32"), expected, 0, tolerance * scale)
    # What lies next to a quantizer's threshold may fall on its other side.
    assert near.mean() > (0.98 if name in QUANTIZES else 1 - 1e-9)


@pytest.mark.parametrize("name", sorted(set(LAYERS) - MODELS))
def test_layer_infers_its_shape_without_running(name):
    layer = LAYERS[name]()
    symbolic = layer(keras.Input((33, None, 3), batch_size=2))
    assert tuple(symbolic.shape) == layer.compute_output_shape((2, 33, None, 3))
    assert symbolic.shape[2] is None


def test_padding_is_pytorchs_on_even_and_odd_sizes():
    # Keras' "same" pads even sizes on the bottom and right only.
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here")
    block = _conv_bn()
    block.norm.epsilon = 0.0
    block.activation = keras.activations.linear
    for side in (11, 12):
        x = images(side)
        theirs = torch.tensor(x.transpose(0, 3, 1, 2))
        got = pooling.MaxPool()(x).numpy().transpose(0, 3, 1, 2)
        expected = torch.nn.functional.max_pool2d(theirs, 3, 2, 1)
        np.testing.assert_array_equal(got, expected.numpy())
        got = block(x, resolution=32).numpy().transpose(0, 3, 1, 2)
        kernel = torch.tensor(block.conv.kernel.numpy().transpose(3, 2, 0, 1))
        expected = torch.nn.functional.conv2d(theirs, kernel, stride=2, padding=1)
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-5)

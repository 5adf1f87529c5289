"""Keras models with unusual layers, made switchable."""

import keras
import numpy as np
import pytest
from keras import layers

import rs_keras
from quant import quantizers
from rs_keras.checkpoints import keras_file
from rs_keras.evaluation import statistics
from rs_keras.export import network as network_lib
from rs_keras.layers import conv_bn
from tests.models import networks


def classifier(*body, before=(), classes=4):
    """A network of some layers, pooling and a head."""
    image = keras.Input((32, 32, 3))
    x = image
    for layer in (*before, *body):
        x = layer(x)
    x = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, x, name="my net")


def same_output(model, reference, images, side):
    image = images.astype("float32")
    expected = np.asarray(reference(image, training=False))
    found = np.asarray(model(image, resolution=side))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["inside", "in front"])
def test_an_adapted_normalization_keeps_its_numbers(where, batch, tmp_path):
    images, _ = batch(n=4, side=32)
    adapted = layers.Normalization()
    adapted.adapt(images.astype("float32"))
    before = (adapted,) if where == "inside" else ()
    keras.utils.set_random_seed(0)
    original = classifier(
        layers.Conv2D(8, 3), layers.BatchNormalization(), before=before
    )
    preprocessing = None if where == "inside" else adapted
    model = rs_keras.make_switchable(original, (32, 24), preprocessing)
    image = keras.Input((32, 32, 3))
    x = image if where == "inside" else adapted(image)
    reference = keras.Model(image, original(x))
    same_output(model, reference, images, 32)
    added = rs_keras.add_resolution(model, 28, bn="interpolate")
    same_output(added, reference, images, 32)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    same_output(loaded, reference, images, 32)
    branch = network_lib.InferenceNetwork(loaded)
    found = branch.logits(images.astype("float32"), branch.table[0])
    np.testing.assert_allclose(found, loaded(images), rtol=1e-4, atol=1e-4)
    assert model.name == "my_net"


def test_a_relu_used_twice_has_a_quantizer_for_each_use(tmp_path):
    relu = layers.ReLU(name="relu")

    convs = [layers.Conv2D(8, 3, name=f"conv{n}") for n in range(3)]
    norms = [layers.BatchNormalization(name=f"norm{n}") for n in range(3)]
    body = [convs[0], norms[0], relu, convs[1], norms[1], relu, convs[2], norms[2]]
    original = classifier(*body)
    model, other = (
        rs_keras.make_switchable(original, (32, 24), weight_bits=2, activation_bits=2)
        for _ in range(2)
    )
    found = [x for x in conv_bn.leaves(model.blocks) if hasattr(x, "collected")]
    assert [layer.name for layer in found] == ["relu.quant", "relu.quant_1"]
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) == len(paths)
    for value, layer in enumerate(found, 1):
        layer.basis.assign(np.full(layer.basis.shape, value))
    model.save(tmp_path / "m.keras")
    keras_file.initialize_from(other, tmp_path / "m.keras")
    copies = {layer.name: layer for layer in conv_bn.leaves(other.blocks)}
    for layer in found:
        np.testing.assert_array_equal(copies[layer.name].basis, layer.basis)


@pytest.mark.parametrize("form", ["operation", "of a convolution"])
def test_every_way_to_write_a_relu_is_quantized(form):
    relu = keras.ops.relu if form == "operation" else layers.Activation("relu")
    last = {} if form == "operation" else {"activation": "relu"}
    body = [layers.BatchNormalization(), layers.Conv2D(8, 3, **last)]
    if form == "operation":
        body.append(relu)
    body.append(layers.Conv2D(8, 3))
    options = {"weight_bits": 2, "activation_bits": 2}
    model = rs_keras.make_switchable(classifier(*body), (32, 24), **options)
    kind = quantizers.LQActivationQuantizer
    assert sum(isinstance(x, kind) for x in conv_bn.leaves(model.blocks)) == 1
    none = [layers.BatchNormalization(), layers.Conv2D(8, 3), layers.Conv2D(8, 3)]
    with pytest.raises(ValueError, match="networks with a ReLU"):
        rs_keras.make_switchable(classifier(*none), (32, 24), **options)


def test_a_normalization_used_twice_is_measured_at_both_places(batch):
    norm = layers.BatchNormalization(name="twice")
    body = [norm, layers.Conv2D(3, 1, name="conv"), norm]
    model = rs_keras.make_switchable(classifier(*body), (32, 24))
    images, _ = batch(n=6, side=28)
    added = rs_keras.add_resolution(model, 28, [images])
    (found,) = statistics.norms(added)
    row = added.resolutions.index(28)
    x = images.astype("float64")
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    y = (x - mean) / np.sqrt(variance + found.epsilon)
    conv = next(x for x in conv_bn.leaves(added.blocks) if x.name == "conv")
    y = y @ np.array(conv.kernel[0, 0], "float64")
    both = np.stack([x, y])
    np.testing.assert_allclose(
        np.array(found.moving_mean)[row], both.mean((0, 1, 2, 3)), rtol=1e-4
    )
    np.testing.assert_allclose(
        np.array(found.moving_variance)[row], both.var((0, 1, 2, 3)), rtol=1e-4
    )


def test_private_bases_get_a_row_of_their_own(batch):
    options = {"weight_bits": 2, "activation_bits": 2, "activation_basis": "private"}
    model = rs_keras.make_switchable(networks.network(), (64, 32), **options)
    added = rs_keras.add_resolution(model, 48, bn="interpolate")
    images, _ = batch(side=48)
    found, expected = (
        m.predict(images, resolution=48, verbose=0) for m in (added, model)
    )
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


def test_dtype_is_that_of_all_layers_and_images_are_not_rounded(batch):
    images, labels = batch(n=4, side=32)
    original = classifier(layers.Conv2D(8, 3), layers.BatchNormalization())
    model = rs_keras.make_switchable(original, (32, 24), dtype="mixed_float16")
    assert {x.compute_dtype for x in conv_bn.leaves(model.blocks)} == {"float16"}
    model.compile(rs_keras.SGD(0.01))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = rs_keras.make_switchable(original, (32, 24))
    finally:
        keras.config.set_dtype_policy("float32")
    same_output(model, original, images + np.float32(0.3), 32)


def _resized():
    body = [layers.BatchNormalization(), lambda x: keras.ops.image.resize(x, (16, 16))]
    return classifier(*body, layers.Conv2D(8, 3))


def _constrained():
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(image))
    return keras.Model(image, layers.Dense(4, kernel_constraint="non_neg")(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_resized, "which fixes it"),
        (_constrained, "must end with logits"),
        (
            lambda: classifier(
                layers.BatchNormalization(),
                layers.Reshape((1, -1, 3)),
                layers.TimeDistributed(layers.BatchNormalization(), name="hides"),
            ),
            "hides (TimeDistributed)",
        ),
    ],
)
def test_what_would_go_wrong_unseen_is_refused(make, words):
    with pytest.raises(ValueError, match="Received: ") as error:
        rs_keras.make_switchable(make(), (32, 24))
    assert words in str(error.value)

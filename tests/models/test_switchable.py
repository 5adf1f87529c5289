"""Keras models made switchable, against the graphs that they were made of."""

import keras
import numpy as np
import pytest
from keras import layers

import rs_keras
from quant import quantizers
from rs_keras.export import saved_model
from rs_keras.export import tflite
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm
from rs_keras.profiling import macs
from tests.models import networks

RESOLUTIONS = (64, 48, 32)


@pytest.fixture(scope="module")
def original():
    keras.utils.set_random_seed(0)
    return networks.stirred(networks.network())


@pytest.fixture(scope="module")
def switchable(original):
    return rs_keras.make_switchable(original, RESOLUTIONS, class_names=list("abcdef"))


def of_any_size(model):
    """The same graph for images of any size, as Keras itself makes it."""
    image = keras.Input((None, None, 3))
    copy = keras.models.clone_model(model, input_tensors=image)
    copy.set_weights(model.get_weights())
    return copy


def probabilities(model, images, resolution):
    logits = model(images.astype("float32"), resolution=resolution)
    return np.asarray(keras.ops.softmax(logits))


def check_equal(found, reference, prepare=lambda x: x, sides=RESOLUTIONS):
    generator = np.random.default_rng(1)
    for side in sides:
        images = generator.integers(0, 256, (3, side, side, 3)).astype("float32")
        expected = reference(prepare(images.copy()), training=False)
        # The same operations, but for the softmax: roundings of float32.
        np.testing.assert_allclose(
            probabilities(found, images, side), expected, rtol=1e-5, atol=1e-6
        )


def norms(model):
    kind = switchable_norm.SwitchableBatchNormalization
    return [x for x in conv_bn.leaves(model.blocks) if isinstance(x, kind)]


def test_outputs_are_those_of_the_graph_at_every_size(original, switchable):
    check_equal(switchable, of_any_size(original))
    assert switchable.name == "net" and switchable.resolutions == RESOLUTIONS
    assert original.inputs[0].shape == (None, 64, 64, 3)  # it was left as it is


def test_every_row_starts_as_the_original_and_the_rest_is_there_once(
    original, switchable
):
    stem = norms(switchable)[0]
    assert (stem.momentum, stem.epsilon) == (0.8, 1e-3)
    theirs = original.get_layer("stem_bn")
    for ours, weight in zip(
        (stem.gamma, stem.beta, stem.moving_mean, stem.moving_variance),
        (theirs.gamma, theirs.beta, theirs.moving_mean, theirs.moving_variance),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, np.tile(weight, (3, 1)))
    private = sum(np.prod(w.shape) for norm in norms(switchable) for w in norm.weights)
    shared = switchable.count_params() - private - 3  # alpha
    # Without scale Keras has no gamma; ours has one that is not trained.
    missing = 16
    assert shared + private // 3 - missing == original.count_params()
    depthwise = norms(switchable)[1]
    assert [w.name for w in depthwise.trainable_weights] == ["beta"]


def test_one_step_at_one_resolution_is_that_of_keras(batch):
    """Losses, gradients and moving statistics, against Keras' own training."""
    images, labels = batch(n=8, side=64)
    keras.utils.set_random_seed(3)
    theirs = networks.stirred(networks.network(final=None))
    theirs.layers[-2].rate = 0.0
    ours = rs_keras.make_switchable(theirs, (64,))
    theirs.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # The ensemble of one resolution is that one, and its loss trains alpha alone.
    ours.compile(
        rs_keras.SGD(0.05, momentum=0.0, weight_decay=0.0),
        rs_keras.MultiResolutionDistillation("none"),
    )
    expected = theirs.train_on_batch(images.astype("float32"), labels)
    found = ours.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(found["loss"], 2 * expected, rtol=1e-5)
    rows = {weight.path: np.array(weight) for weight in theirs.weights}
    for layer in conv_bn.leaves(ours.blocks):
        for weight in layer.weights:
            end = f"{layer.name}/{weight.name}"
            match = [value for path, value in rows.items() if path.endswith(end)]
            if not match:
                assert weight.name == "gamma" and not weight.trainable
                continue
            value = np.array(weight)
            value = value[0] if layer in norms(ours) else value
            # One kernel of TensorFlow's fused normalization against Keras' own ops.
            np.testing.assert_allclose(value, match[0], rtol=2e-4, atol=2e-6)


def test_it_trains_predicts_and_comes_back(original, batch, tmp_path):
    images, labels = batch(n=8, side=(70, 90))
    model = rs_keras.make_switchable(original, RESOLUTIONS)
    model.compile(rs_keras.SGD(0.02))
    losses = model.fit(images, labels, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    first, *others = np.array(norms(model)[0].moving_mean)
    assert all(np.abs(first - row).max() > 1e-4 for row in others)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for resolution in (64, 40, 32):
        np.testing.assert_array_equal(
            loaded.predict(images, resolution=resolution, verbose=0),
            model.predict(images, resolution=resolution, verbose=0),
        )
    loaded.fit(images, labels, verbose=0)
    added = rs_keras.add_resolution(loaded, 40, [images], bn="calibrate_exact")
    assert added.predict(images, resolution=40, verbose=0).shape == (8, 6)


def test_low_bits_go_where_a_layer_has_a_counterpart(original, batch):
    images, labels = batch(n=8, side=64)
    model = rs_keras.make_switchable(
        original, RESOLUTIONS, weight_bits=2, activation_bits=2
    )
    found = {layer.name: layer for layer in conv_bn.leaves(model.blocks)}
    quantized = {n for n, layer in found.items() if quantization.is_quantized(layer)}
    assert quantized == {"depthwise", "gate", "project", "last"}
    activations = {
        name
        for name, layer in found.items()
        if isinstance(layer, quantizers.LQActivationQuantizer)
    }
    # last_relu feeds the head alone, depthwise_relu only sums and products.
    assert activations == {"stem_relu.quant"}
    kernel = np.array(found["last"].quantized_kernel())
    assert all(len(np.unique(kernel[..., c])) <= 4 for c in range(24))
    assert type(model.head) is layers.Dense
    model.compile(rs_keras.SGD(0.01))
    before = np.array(found["last"].weight_quantizer.basis)
    model.fit(images, labels, verbose=0)
    assert np.abs(before - np.array(found["last"].weight_quantizer.basis)).max() > 0


def test_exports_compute_what_the_network_does(switchable, tmp_path):
    report = saved_model.export_saved_model(switchable, tmp_path / "saved")
    assert set(report["signatures"]) == {"r64", "r48", "r32", "serving_default"}
    for layout in ("signatures", "dynamic"):
        data, report = tflite.convert(switchable, layout, "float32")
        assert report["classes"] == list("abcdef") and len(data) > 1000


@pytest.mark.parametrize("form", ["function", "layer"])
def test_preprocessing_stands_in_front(form):
    keras.utils.set_random_seed(1)
    image = keras.Input((64, 64, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(image))
    x = layers.GlobalAveragePooling2D()(x)
    model = networks.stirred(
        keras.Model(image, layers.Dense(4, activation="softmax")(x))
    )
    prepare = keras.applications.resnet.preprocess_input
    if form == "layer":
        prepare = layers.Rescaling(1 / 127.5, offset=-1)
    found = rs_keras.make_switchable(model, (64, 32), preprocessing=prepare)
    check_equal(found, of_any_size(model), prepare, sides=(64, 32))


def test_sequential_models_shared_layers_and_other_heads_are_taken():
    keras.utils.set_random_seed(2)
    conv = layers.Conv2D(8, 3, padding="same", name="twice")
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same"),
            conv,
            layers.BatchNormalization(),
            conv,
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Conv2D(5, 1),
            layers.Flatten(),
            layers.Softmax(),
        ]
    )
    found = rs_keras.make_switchable(model, (32, 16))
    check_equal(found, of_any_size(model), sides=(32, 16))
    other = rs_keras.make_switchable(model, (32, 16), num_classes=9)
    assert other.num_classes == 9 and found.num_classes == 5


def test_multiply_adds_are_those_of_the_kernels(switchable):
    stem, rest = 31 * 31 * 16 * 27, 31 * 31 * 16 * (9 + 16) + 16 * 16
    last = 16 * 16 * 24 * 9 * 32 + 24 * 6
    # 64 + 1 pixels, a valid convolution of stride 2; its 32 become 16.
    stem, rest = (n * 32 * 32 // (31 * 31) for n in (stem, rest - 256))
    assert macs.multiply_adds(switchable, 64) == stem + rest + 256 + last


APPLICATIONS = {
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3Small": None,
    "MobileNetV3Large": None,
    "EfficientNetV2B0": None,
    "ResNet50V2": "resnet_v2",
    "DenseNet121": "densenet",
    "InceptionV3": "inception_v3",
    "Xception": "xception",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_of_keras_applications_equal_their_graphs(name):
    module = APPLICATIONS[name]
    prepare = module and getattr(keras.applications, module).preprocess_input
    model = getattr(keras.applications, name)(weights=None, classes=10)
    networks.stirred(model)
    found = rs_keras.make_switchable(model, (160, 128, 96), preprocessing=prepare)
    reference = of_any_size(model)
    check_equal(found, reference, prepare or (lambda x: x), (160, 128, 96))

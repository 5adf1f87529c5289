"""LQ-Nets for tf_keras, and an import that leaves the process as it is."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from quant import lq_math
from quant import quantizers
from quant import tfmot as bridge
from tests import golden
from tests.quant import draws

# After the bridge, which keeps the import from changing tf.keras.
from tensorflow_model_optimization.quantization import keras as tfmot  # isort: skip

KIND_OF_KERAS_3 = {
    "weights": quantizers.LQWeightQuantizer,
    "activations": quantizers.LQActivationQuantizer,
}


def draw(kind, bits, step):
    x = draws.weights(step) if kind == "weights" else draws.activations(bits, step)
    return tf.constant(x)


def make(kind, bits):
    """(LQQuantizer, its variables)."""
    quantizer = bridge.LQQuantizer(bits, kind)
    layer = tf_keras.layers.Layer()
    return quantizer, quantizer.build(draw(kind, bits, 1).shape, "kernel", layer)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_lq_quantizer_follows_the_reference(kind, bits):
    file = golden.arrays(f"lq_{draws.FILES[kind]}_bit{bits}.npz")
    quantizer, variables = make(kind, bits)
    np.testing.assert_allclose(variables["basis"], file["basis0"], atol=1e-6)
    seed = 900 if kind == "weights" else 901
    for step in range(1, 6):
        x = draw(kind, bits, step)
        upstream = np.random.default_rng(seed).standard_normal(x.shape)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x, training=True, weights=variables)
        gradient = tape.gradient(y, x, upstream.astype("float32"))
        for name, found in ((f"y{step}", y), (f"grad{step}", gradient)):
            if name in file:
                np.testing.assert_allclose(found, file[name], atol=1e-5)
        np.testing.assert_allclose(variables["basis"], file[f"basis{step}"], atol=1e-5)


@pytest.mark.parametrize("bits", [2, 6])
@pytest.mark.parametrize("kind", lq_math.KINDS)
def test_lq_quantizer_equals_the_keras_3_layer(kind, bits):
    quantizer, variables = make(kind, bits)
    layer = KIND_OF_KERAS_3[kind](bits)
    for step in range(1, 8):
        x = draw(kind, bits, step)
        y = quantizer(x, training=True, weights=variables)
        np.testing.assert_allclose(y, layer(x, update="fit"), atol=1e-6)
        basis = np.array(variables["basis"])
        np.testing.assert_allclose(basis, layer.basis[0], rtol=1e-5, atol=1e-7)
        y = quantizer(x, training=False, weights=variables)
        np.testing.assert_allclose(y, layer(x), atol=1e-6)
        np.testing.assert_array_equal(variables["basis"], basis)
    assert float(variables["fits"]) == 7


def images(count=64):
    x = np.random.default_rng(0).standard_normal((count, 10, 10, 3)).astype("float32")
    return x, (x[..., 0].mean((1, 2)) > 0).astype("int64")


@pytest.fixture(scope="module")
def annotated():
    """A trained tf_keras model, 2-bit kernels and activations; and its losses."""
    layers, annotate = tf_keras.layers, tfmot.quantize_annotate_layer
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            tf_keras.Input((10, 10, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            annotate(layers.Conv2D(8, 3), bridge.LQQuantizeConfig(2)),
            layers.BatchNormalization(),
            annotate(layers.ReLU(), bridge.LQQuantizeConfig(32, 2)),
            annotate(
                layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"),
                bridge.LQQuantizeConfig(3, 2),
            ),
            layers.GlobalAveragePooling2D(),
            annotate(layers.Dense(2), bridge.LQQuantizeConfig(2)),
        ]
    )
    model = tfmot.quantize_apply(model)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(0.02), loss)
    history = model.fit(*images(), batch_size=16, epochs=8, verbose=0)
    return model, history.history["loss"]


def test_annotated_model_learns(annotated):
    losses = annotated[1]
    assert losses[-1] < 0.8 * losses[0]


def test_annotated_layers_compute_with_few_values(annotated):
    model, _ = annotated
    x, _ = images()
    found = {}
    for layer in model.layers:
        x = layer(x, training=False)
        found[layer.name] = layer, x
    for name, attribute, levels in (
        ("quant_conv2d_1", "kernel", 4),
        ("quant_depthwise_conv2d", "depthwise_kernel", 8),
        ("quant_dense", "kernel", 4),
    ):
        # tfmot leaves the quantized kernel where the float one was.
        kernel = np.array(getattr(found[name][0].layer, attribute))
        channels = 16 if "depthwise" in name else kernel.shape[-1]
        kernel = kernel.reshape(-1, channels)
        counts = [len(np.unique(column)) for column in kernel.T]
        assert 1 < max(counts) <= levels, name
        assert len(np.unique(kernel)) > levels  # a basis for each channel
    for name in ("quant_re_lu", "quant_depthwise_conv2d"):
        assert 1 < len(np.unique(found[name][1])) <= 4


def variables_of(model, part):
    return {v.name: v.numpy() for v in model.weights if part in v.name}


def test_bases_move_in_training_only(annotated):
    model, _ = annotated
    bases = variables_of(model, "_basis")
    assert set(variables_of(model, "_fits").values()) == {32.0}  # 4 batches, 8 epochs
    assert {v.shape for v in bases.values()} == {(2, 8), (2, 1), (3, 16), (2, 2)}
    model.predict(images()[0], verbose=0)
    for name, value in variables_of(model, "_basis").items():
        np.testing.assert_array_equal(value, bases[name])


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("file", ["model.h5", "saved_model"])
def test_annotated_model_comes_back_and_learns_on(annotated, file, tmp_path):
    model, _ = annotated
    x, labels = images()
    model.save(tmp_path / file)
    with tfmot.quantize_scope():
        copy = tf_keras.models.load_model(tmp_path / file)
    np.testing.assert_allclose(
        copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )
    copy.train_on_batch(x, labels)
    before, after = variables_of(model, "_fits"), variables_of(copy, "_fits")
    assert {k: v + 1 for k, v in before.items()} == after


@pytest.mark.parametrize(
    "layer, bits, text",
    [
        ("Dense", (0,), "`bits` must be an integer from 1 to 8. Received: bits=0"),
        ("Dense", (2, 9), "Received: bits=9"),
        ("BatchNormalization", (2,), "a kernel.*Received: BatchNormalization norm"),
        ("Conv2DTranspose", (2,), "channels last. Received: Conv2DTranspose layer"),
        ("SeparableConv2D", (2,), "Received: SeparableConv2D layer"),
        ("Conv2D", (2, 2), "not negative. Received: Conv2D layer"),
        ("Activation", (2, 2), "not negative. Received: Activation layer"),
        ("ReLU", (2,), "a kernel.*Received: ReLU layer"),
    ],
)
def test_layers_that_lq_nets_do_not_quantize_are_refused(layer, bits, text):
    kind = getattr(tf_keras.layers, layer)
    options = {"Dense": (2,), "Activation": ("tanh",)}.get(layer, (4, 3))
    options = () if layer in ("BatchNormalization", "ReLU") else options
    name = "norm" if layer == "BatchNormalization" else "layer"
    with pytest.raises(ValueError, match=text):
        config = bridge.LQQuantizeConfig(*bits)
        kind = tfmot.quantize_annotate_layer(kind(*options, name=name), config)
        model = tf_keras.Sequential([tf_keras.Input((8, 8, 3)), kind])
        tfmot.quantize_apply(model)


IMPORTS = {
    "keras_first": ("import keras, tensorflow, quant.tfmot", "0", 3),
    "bridge_first": ("import quant.tfmot, keras", None, 3),
    # What a user's own import of tfmot did is left as well.
    "tfmot_first": ("import tensorflow_model_optimization, quant.tfmot, keras", "1", 2),
}


@pytest.mark.parametrize("order", IMPORTS)
def test_import_leaves_both_kerases_as_they_are(order, fresh_python, monkeypatch):
    imports, variable, version = IMPORTS[order]
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    preset = {"TF_USE_LEGACY_KERAS": variable} if variable == "0" else {}
    output = fresh_python(
        f"{imports}, os, sys, tensorflow as tf, tf_keras\n"
        "print(os.environ.get('TF_USE_LEGACY_KERAS'), keras.__version__[0])\n"
        "for kind in keras.layers.Layer, tf_keras.layers.Layer:\n"
        "    print(vars(tf)['keras'].layers.Layer is kind)\n",
        **preset,
    )
    expected = [str(variable), "3", str(version == 3), str(version == 2)]
    assert output.split() == expected


def test_another_backend_is_answered_in_a_sentence(fresh_python):
    output = fresh_python(
        "try:\n    import quant.tfmot\nexcept ImportError as error:\n    print(error)",
        KERAS_BACKEND="jax",
    )
    assert output.strip() == (
        "quant.tfmot needs the TensorFlow backend. Received: KERAS_BACKEND=jax"
    )

"""Integer-only files of networks with operators that the package's own have not."""

import keras
import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from keras import layers

import rs_keras
from rs_keras.export import flatbuffer
from rs_keras.export import tflite
from tests.models import networks


def with_activation(name):
    """Scaled by subtraction; gated, joined and flattened."""
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same")(image / 127.5 - 1.0)
    x = layers.Activation(name)(layers.BatchNormalization()(x))
    y = layers.Conv2D(16, 3, padding="same")(x)
    y = layers.Activation(name)(layers.BatchNormalization()(y))
    gate = layers.Conv2D(16, 1)(layers.GlobalAveragePooling2D(keepdims=True)(y))
    y = layers.Multiply()([y, layers.Activation("sigmoid")(gate)])
    x = layers.Concatenate()([4 * x, y])
    x = layers.Conv2D(24, 3, strides=2, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    return keras.Model(image, layers.Dense(6)(x), name=name)


@pytest.mark.parametrize("name", ["relu", "relu6", "hard_silu", "gate"])
def test_integers_compute_nearly_what_the_network_does(name):
    keras.utils.set_random_seed(0)
    network = networks.network if name == "gate" else lambda: with_activation(name)
    model = rs_keras.make_switchable(networks.stirred(network()), (64, 32))
    generator = np.random.default_rng(0)
    low = generator.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    images = {r: low.repeat(r // 8, axis=1).repeat(r // 8, axis=2) for r in (64, 32)}
    data, _ = tflite.convert(model, "signatures", "int8", calibration=images)
    _check_integers(data)
    interpreter = litert.Interpreter(model_content=data)
    for resolution in (64, 32):
        run = interpreter.get_signature_runner(f"r{resolution}")
        scale, zero = run.get_output_details()["logits"]["quantization"]
        found = [run(image=image[None])["logits"] for image in images[resolution]]
        found = (np.concatenate(found).astype("float32") - zero) * scale
        expected = np.asarray(model(images[resolution], resolution=resolution))
        # Ten layers round to 255 steps; what images have in common is left out.
        spread = np.linalg.norm(expected - expected.mean(axis=0))
        assert np.linalg.norm(found - expected) < 0.12 * spread


def _check_integers(data):
    """No tensor of any graph is float."""
    for graph in flatbuffer.read(data).subgraphs:
        assert {flatbuffer.dtype(t) for t in graph.tensors} <= {
            "int8",
            "uint8",
            "int32",
        }

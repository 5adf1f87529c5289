"""Statistics and steps over two replicas equal those of one device."""

import json

import numpy as np
import pytest

# float32 sums in another order
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}

REPLICAS = """
import json, os
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
import keras
import rs_keras
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization
from rs_keras.models import resnet

x = np.random.default_rng(0).standard_normal((8, 3, 3, 4)).astype("float32")
x[:4] += 3  # the replicas' own statistics differ widely
with strategy.scope():
    layer = rs_keras.SwitchableBatchNormalization(
        (64, 32), synchronized=True, momentum=0.0)
    layer.build((None, None, None, 4))

@tf.function
def call(x):
    return layer(x, resolution=32, training=True)

dataset = tf.data.Dataset.from_tensor_slices(x).batch(8)
for batch in strategy.experimental_distribute_dataset(dataset):
    y = strategy.run(call, args=(batch,))
y = tf.concat(strategy.experimental_local_results(y), 0)

def network(norm_options, bits=(32, 32)):
    keras.utils.set_random_seed(0)
    norm = resnet.norm_factory((64, 32), 1, False, norm_options)
    block = conv_bn.conv_bn(
        8, 3, 2, norm=norm, name="conv", norm_name="norm", activation="relu",
        low_bit=quantization.quantization((64, 32), 1, *bits), output_name="quant")
    model = rs_keras.Classifier(
        [block], keras.layers.Dense(6, name="head"), (64, 32))
    model.compile(rs_keras.SGD(0.05, weight_decay=1e-3))
    return model

images = np.random.default_rng(1).integers(0, 256, (8, 64, 64, 3)).astype("uint8")
labels = np.arange(8) % 6
data = tf.data.Dataset.from_tensors(
    ({64: images, 32: images[:, ::2, ::2]}, labels)).repeat(1)

def compare(bits):
    with strategy.scope():
        model = network({"synchronized": True}, bits)
    split = model.fit(data.unbatch().batch(8), verbose=0).history
    single = network(None, bits)
    whole = single.fit(data, verbose=0).history
    weights = [float(np.abs(np.asarray(a) - np.asarray(b)).max())
               for a, b in zip(model.weights, single.weights)]
    return {"split": split["loss"], "whole": whole["loss"], "weights": max(weights)}

print("RESULT", json.dumps({
    "y": np.asarray(y).tolist(), "mean": np.asarray(layer.moving_mean)[1].tolist(),
    "variance": np.asarray(layer.moving_variance)[1].tolist(),
    "float": compare((32, 32)), "2/2": compare((2, 2))}))
"""


@pytest.fixture(scope="module")
def replicas(fresh_python):
    """One program on two logical devices, which are set before TensorFlow starts."""
    output = fresh_python(REPLICAS)
    line = next(n for n in output.splitlines() if n.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def test_synchronized_statistics_are_those_of_the_global_batch(replicas):
    x = np.random.default_rng(0).standard_normal((8, 3, 3, 4)).astype("float32")
    x[:4] += 3
    axes = (0, 1, 2)
    np.testing.assert_allclose(replicas["mean"], x.mean(axes), **TOLERANCE)
    # Unbiased over the 72 values of the global batch, not the 36 of a replica.
    np.testing.assert_allclose(replicas["variance"], x.var(axes, ddof=1), **TOLERANCE)
    expected = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
    np.testing.assert_allclose(replicas["y"], expected, **TOLERANCE)


@pytest.mark.parametrize("network", ["float", "2/2"])
def test_step_on_two_replicas_equals_the_step_on_one(replicas, network):
    # Same global batch, synchronized statistics: the loss, the update and the bases are
    # the same up to float32 sums in another order.
    found = replicas[network]
    np.testing.assert_allclose(found["split"], found["whole"], rtol=1e-5)
    assert found["weights"] < 1e-5

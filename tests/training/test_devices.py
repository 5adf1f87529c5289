"""Two devices, and two processes, do the step of one, or of two shards of its batch."""

import json
import socket

import numpy as np
import pytest

from rs_keras.training import cluster
from rs_keras.training import devices as devices_lib
from tests import commands

# Four steps in float64, in which a sum in another order changes a weight by some 1e-16;
# each step of this small network with its batch of 8 multiplies that by about ten.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}

PROGRAM = """
import sys
import numpy as np, tensorflow as tf
from rs_keras.training import cluster, devices as devices_lib
output, kinds = sys.argv[1], sys.argv[2:]
if "mirrored" in kinds:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
task = cluster.task() if "multi_worker" in kinds else cluster.Task()
made = {kind: devices_lib.devices(kind, task) for kind in kinds if kind != "shards"}
import keras, rs_keras
from rs_keras.layers import conv_bn, quantization
from rs_keras.models import resnet
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
STEPS, N = 4, 8
generator = np.random.default_rng(1)
images = generator.integers(0, 256, (STEPS * N, 48, 48, 3)).astype("uint8")
images[::2] //= 3
labels = generator.integers(0, 6, STEPS * N)

def network(synchronized):
    keras.utils.set_random_seed(0)
    norm = resnet.norm_factory((48, 32), 1, False, {"synchronized": synchronized})
    block = conv_bn.conv_bn(
        8, 3, 2, norm=norm, name="conv", norm_name="norm", activation="relu",
        output_name="quant")
    model = rs_keras.Classifier(
        [block], keras.layers.Dense(6, name="head"), (48, 32))
    model.compile(rs_keras.SGD(0.05, weight_decay=1e-3))
    return model

def dataset(size, shard):
    worker, workers = shard
    part = N // workers
    order = [b * N + worker * part + i for b in range(STEPS) for i in range(part)]
    x = images[order]
    return tf.data.Dataset.from_tensor_slices(
        ({48: x, 32: x[:, 8:40, 8:40]}, labels[order])).batch(size)

def trained(devices, synchronized):
    with devices.scope():
        model = network(synchronized)
    step, losses = devices.step(model), []
    for batch in devices.batches(dataset, N):
        logs, wished = step(batch, len(losses) == 2)
        losses.append((float(logs["loss"]), float(wished)))
    return model, devices.read(model.variables), losses

def of_shards():
    # One device: each half with its own statistics; gradients, moving statistics mean.
    model = network(False)
    for x, y in dataset(N, (0, 1)):
        before = [np.array(v) for v in model.non_trainable_variables]
        gradients, after = [], []
        for half in (slice(0, N // 2), slice(N // 2, N)):
            for v, value in zip(model.non_trainable_variables, before):
                v.assign(value)
            with tf.GradientTape() as tape:
                outputs = model({k: v[half] for k, v in x.items()}, training=True)
                loss = model.compute_loss(None, y[half], outputs)
            variables = [v.value for v in model.trainable_variables]
            gradients.append(tape.gradient(loss, variables))
            after.append([np.array(v) for v in model.non_trainable_variables])
        mean = [(a + b) / 2 for a, b in zip(*gradients)]
        model.optimizer.apply(mean, model.trainable_variables)
        for v, a, b in zip(model.non_trainable_variables, *after):
            v.assign((a + b) / 2)
    return [np.array(v) for v in model.variables]

found = {}
for kind, devices in made.items():
    for synchronized in (True, False):
        model, values, losses = trained(devices, synchronized)
        name = f"{kind}_{'synchronized' if synchronized else 'own'}"
        found.update({f"{name}_{i}": value for i, value in enumerate(values)})
        found[f"{name}_losses"] = losses
    found[f"{kind}_agreed"] = devices.agree((3 + 4 * task.worker, 7))
if "shards" in kinds:
    found.update({f"shards_{i}": value for i, value in enumerate(of_shards())})
if task.writes:
    np.savez(output, **found)
"""


def free_ports(count):
    with_sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in with_sockets]
    for s in with_sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one, two and two times one devices make of the same batches."""
    directory = tmp_path_factory.mktemp("devices")
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = [
        commands.start(PROGRAM, directory / "one.npz", "none", "mirrored", "shards")
    ]
    for index in range(2):
        config = {
            "cluster": {"worker": hosts},
            "task": {"type": "worker", "index": index},
        }
        output = directory / "many.npz"
        environment = {"TF_CONFIG": json.dumps(config)}
        processes.append(commands.start(PROGRAM, output, "multi_worker", **environment))
    errors = [process.communicate(timeout=300)[1] for process in processes]
    for process, text in zip(processes, errors, strict=True):
        assert process.returncode == 0, text[-3000:]
    return {**np.load(directory / "one.npz"), **np.load(directory / "many.npz")}


def values(found, name):
    found = {k: v for k, v in found.items() if k.startswith(name)}
    return [found[f"{name}_{i}"] for i in range(sum("losses" not in k for k in found))]


@pytest.mark.parametrize("kind", ["mirrored", "multi_worker"])
def test_synchronized_devices_do_the_step_of_one(found, kind):
    one = values(found, "none_synchronized")
    many = values(found, f"{kind}_synchronized")
    assert len(one) == len(many) > 6
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, **TOLERANCE)
    np.testing.assert_allclose(
        found["none_synchronized_losses"],
        found[f"{kind}_synchronized_losses"],
        **TOLERANCE,
    )


@pytest.mark.parametrize("kind", ["mirrored", "multi_worker"])
def test_devices_with_their_own_statistics_are_shards(found, kind):
    shards, many = values(found, "shards"), values(found, f"{kind}_own")
    for a, b in zip(shards, many, strict=True):
        np.testing.assert_allclose(a, b, **TOLERANCE)
    assert any(
        not np.allclose(a, b, rtol=1e-4)
        for a, b in zip(values(found, "none_own"), many, strict=True)
    )


def test_a_wish_and_numbers_of_the_first_process_reach_all(found):
    for kind in ("none", "mirrored", "multi_worker"):
        wished = found[f"{kind}_own_losses"][:, 1]
        np.testing.assert_array_equal(wished, [0, 0, 1, 0])
        np.testing.assert_array_equal(found[f"{kind}_agreed"], [3, 7])


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_missing_or_wrong_tf_config_is_refused(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="needs TF_CONFIG=.* Received: "):
        cluster.task()


def test_a_batch_that_cannot_be_shared_out_is_refused():
    devices = devices_lib.devices("none", cluster.Task())
    devices.replicas = 2
    devices.check_batch_size(12, parts=3)
    with pytest.raises(ValueError, match="2 x 4. Received: --batch_size=12"):
        devices.check_batch_size(12, parts=4)

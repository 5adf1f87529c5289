"""The step of `test_step.py` on two replicas and on JAX, in processes of their own."""

import importlib.util
import json

import pytest

REPLICAS = """
import json
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
import rs_keras
from tests.training import steps

def values(model):
    return [np.array(part) for v in [*model.weights, *model.optimizer.variables]
            for part in strategy.experimental_local_results(v.value)]

def stepped(**options):
    with strategy.scope():
        model = steps.small(bits=(2, 2))
        model.compile(rs_keras.SGD(0.05), **options)
    x, y = steps.batch(model)
    x = {key: images.astype("float32") for key, images in x.items()}

    def batches(x):
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(6, drop_remainder=True)
        return strategy.experimental_distribute_dataset(data)

    @tf.function
    def run(batch):
        return strategy.run(model.train_step, (batch,))

    run(next(iter(batches(x))))
    return model, x, batches, run

ordinary = values(stepped()[0])
options = {"activation_memory": "one_resolution", "skip_nonfinite": True}
model, x, batches, run = stepped(**options)
before = values(model)
x[32][5] = np.nan  # on the second replica alone
run(next(iter(batches(x))))
after = values(model)
print("RESULT", json.dumps({
    "difference": max(steps.difference(a, b) for a, b in zip(before, ordinary)),
    "unchanged": all(map(np.array_equal, before, after)),
    "skipped": float(model.get_metrics_result()["skipped_steps"])}))
"""


@pytest.mark.slow
def test_replicas_take_the_ordinary_step_and_skip_together(fresh_python):
    output = fresh_python(REPLICAS)
    line = next(n for n in output.splitlines() if n.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    assert found["difference"] < 1e-5
    assert (found["unchanged"], found["skipped"]) == (True, 1)


JAX = """
import numpy as np
import keras
import rs_keras
from tests.training import steps

def same(found, expected, tolerance=1e-5):
    for name, value in expected.items():
        error = steps.difference(found[name], value)
        assert error < tolerance, (name, error)

options = {"activation_memory": "one_resolution", "skip_nonfinite": True}
quantizers = {"basis_updates": "per_resolution", "activation_basis": "private"}
results = []
for extra in ({}, options):
    model = steps.small(bits=(2, 2), quantizer_options=quantizers)
    model.compile(rs_keras.SGD(0.05), **extra)
    x, y = steps.batch(model)
    x = {key: images.astype("float32") for key, images in x.items()}
    results.append(steps.taken(model, x, y))
for expected, found in zip(*results):
    same(found, expected)

x[32][5, 3, 3, 0] = np.nan
before = steps.state(model)
assert model.train_on_batch(x, y, return_dict=True)["skipped_steps"] == 1
for name, value in steps.state(model).items():
    np.testing.assert_array_equal(value, before[name], err_msg=name)

# A batch that is twice the same, in two parts, has the gradients of one of them.
results = []
for times, extra in ((1, {"run_eagerly": True}), (2, {"accumulate": 2, **options})):
    model = steps.small()
    model.compile(rs_keras.SGD(0.05), **extra)
    x, y = steps.batch(model)
    x = {key: np.concatenate([images] * times) for key, images in x.items()}
    results.append(steps.taken(model, x, np.concatenate([y] * times)))
for n in (0, 1):  # the logs, but for skipped_steps, and the gradients
    same(results[1][n], results[0][n], 1e-4)  # compiled or not rounds differently

model.compile(accumulate=4)
try:
    model.train_on_batch(*steps.batch(model))
except ValueError as error:
    assert "Received: accumulate=4 and 6 images" in str(error)
else:
    raise AssertionError("6 images in 4 parts must be refused")
print("DONE")
"""


@pytest.mark.slow
def test_steps_on_jax_are_the_ordinary_ones(fresh_python):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    # Most of the time goes into compiling; optimized or not, the step is the same.
    quick = "--xla_backend_optimization_level=0"
    assert "DONE" in fresh_python(JAX, KERAS_BACKEND="jax", XLA_FLAGS=quick)

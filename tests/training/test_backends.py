"""Steps on JAX, on one device and on two, are those of TensorFlow."""

import numpy as np
import pytest

from tests import commands
from tests.training import steps

# Of the norm of each tensor, after three steps in float64. Quantizers compute in
# float32, where a value at a threshold falls to the other side: 1% of beta, which is
# small.
TOLERANCE = {"plain": 1e-9, "parts": 1e-9, "low": 0.02}

PROGRAM = """
import sys
import numpy as np
from rs_keras.training import cluster, devices as devices_lib
output, *kinds = sys.argv[1:]
devices_lib.start(0)
made = {kind: devices_lib.devices(kind, cluster.Task()) for kind in kinds}
import keras, tensorflow as tf, rs_keras
from tests.training import steps
# On JAX Keras takes the mean of float64 in float32: here sums, and in the objective a
# weight that float32 has.
keras.layers.GlobalAveragePooling2D.call = (
    lambda self, x: keras.ops.sum(x, (1, 2)) / (x.shape[1] * x.shape[2]))
LOW = {"basis_updates": "per_resolution", "activation_basis": "private"}
PARTS = {"activation_memory": "one_resolution", "accumulate": 2, "skip_nonfinite": True}
NETWORKS = {"plain": ((32, 32), {}, {}), "low": ((2, 2), LOW, {}),
            "parts": ((32, 32), {}, PARTS)}
found = {}
for kind, devices in made.items():
    for name, (bits, quantizers, options) in NETWORKS.items():
        dtype = "float32" if name == "low" else "float64"
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        with devices.scope():
            model = steps.small(bits, quantizers)
            model.rescaling.scale = 2**-8  # TensorFlow takes 1 / 255 in float32
            model.compile(rs_keras.SGD(0.05, weight_decay=1e-3),
                          rs_keras.MultiResolutionDistillation(weight=0.5),
                          jit_compile=keras.backend.backend() == "jax", **options)
        generator = np.random.default_rng(0)  # the backends draw other numbers
        for v in model.trainable_variables:
            if v.path.endswith("kernel"):
                scale = np.sqrt(2 / np.prod(v.shape[:-1]))
                v.assign(scale * generator.standard_normal(v.shape))
        x, y = steps.batch(model, count=24)
        data = tf.data.Dataset.from_tensor_slices((x, y))
        step = devices.step(model)
        for batch in devices.batches(lambda size, task: data.batch(size), 8):
            logs, _ = step(batch, False)
        variables = [*model.variables, *model.optimizer.variables]
        values = devices.read(variables)
        for variable, value in zip(variables, values, strict=True):
            found[f"{kind} {name} {variable.path}"] = value
        for key, value in logs.items():
            found[f"{kind} {name} log {key}"] = np.float32(value)
np.savez(output, **found)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{backend: {"kind network name": value}}."""
    pytest.importorskip("jax", reason="the other backend is needed")
    directory = tmp_path_factory.mktemp("backends")
    # Compiling takes most of the time, and optimizes more than is worth it here.
    flags = "--xla_backend_optimization_level=0"
    flags += " --xla_force_host_platform_device_count=2"
    processes = [
        commands.start(PROGRAM, directory / "tensorflow.npz", "none"),
        commands.start(
            PROGRAM,
            directory / "jax.npz",
            "none",
            "mirrored",
            KERAS_BACKEND="jax",
            JAX_ENABLE_X64="1",
            XLA_FLAGS=flags,
        ),
    ]
    errors = [process.communicate(timeout=500)[1] for process in processes]
    for process, text in zip(processes, errors, strict=True):
        assert process.returncode == 0, text[-3000:]
    return {path.stem: dict(np.load(path)) for path in directory.glob("*.npz")}


@pytest.mark.parametrize("network", ["plain", "low", "parts"])
@pytest.mark.parametrize("kind", ["none", "mirrored"])
def test_three_steps_on_jax_are_those_of_tensorflow(found, kind, network):
    expected = {
        name.removeprefix(f"none {network} "): value
        for name, value in found["tensorflow"].items()
        if name.startswith(f"none {network} ")
    }
    assert len(expected) > 15
    for name, value in expected.items():
        got = found["jax"][f"{kind} {network} {name}"]
        assert got.shape == value.shape and got.dtype.kind == value.dtype.kind, name
        error = steps.difference(got, value)
        # Logs are means, in float32.
        assert error < max(TOLERANCE[network], 1e-6 * name.startswith("log ")), name


@pytest.mark.slow
def test_three_steps_on_jax_are_the_official_ones(fresh_python):
    pytest.importorskip("jax", reason="the other backend is needed")
    program = (
        "import sys, pytest\n"
        "tests = ['tests/training/test_three_steps.py', '-k', 'losses or statistics']\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *tests]))"
    )
    flags = "--xla_backend_optimization_level=0"
    found = fresh_python(program, KERAS_BACKEND="jax", XLA_FLAGS=flags)
    assert "6 passed" in found or "6 skipped" in found, found

"""The same network on the JAX backend."""

import importlib.util

import pytest

from tests import golden

# Most of the time goes into compiling, and much of that into what makes steps faster.
QUICK = "--xla_backend_optimization_level=0"

# As where TensorFlow and what belongs to it are not installed.
BLOCKED = """
import sys

class Blocked:
    NAMES = {"ai_edge_litert", "flatbuffers", "tensorboard", "tensorflow", "tf_keras",
             "tensorflow_datasets", "tensorflow_model_optimization"}

    @classmethod
    def find_spec(cls, name, *_):
        if name.partition(".")[0] in cls.NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

assert Blocked.NAMES.isdisjoint(sys.modules)
sys.meta_path.insert(0, Blocked)
"""
PROGRAM = (
    BLOCKED
    + """
import tempfile
import numpy as np
import rs_keras
from rs_keras.checkpoints import keras_file, torch_import, training_state
from tests import golden
model = rs_keras.resnet18((224, 192, 160, 128, 96), 1000)
shapes = {k: v.shape for k, v in torch_import.state_dict(model).items()}
torch_import.load_state_dict(model, golden.weights("resnet18", shapes))
logits = np.asarray(model(golden.image(96), resolution=96))
expected = golden.arrays("rsnet_logits_resnet18.npz")["logits_96"]
np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)

small = rs_keras.resnet18((64, 32), 6, width=0.25)
small.compile(rs_keras.SGD(0.01))
x = np.random.default_rng(0).integers(0, 256, (4, 70, 90, 3)).astype("uint8")
y = np.arange(4)
first, second = (small.train_on_batch(x, y, return_dict=True) for _ in range(2))
assert np.isfinite([float(first["loss"]), float(second["loss"])]).all()
assert small.predict(x, resolution=48, verbose=0).shape == (4, 6)
history = small.fit(x, y, epochs=2, batch_size=2, verbose=0).history
found = small.evaluate(x, y, batch_size=2, verbose=0)
assert {"loss", "top1_64", "top1_32", "top1_ensemble"} <= set(history) & set(found)
assert np.isfinite(history["loss"]).all()
added = rs_keras.add_resolution(small, 48, [x[:2], x[2:]], bn="calibrate_exact")
assert np.isfinite(added.predict(x, resolution=48, verbose=0)).all()
assert added.added_resolutions[48]["passes"] > 2
logits = small.predict(x, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    small.save(f"{folder}/small.keras")
    again = keras_file.load(f"{folder}/small.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), logits, atol=1e-5)
    state = training_state.arrays(again)
    path = training_state.save(folder, state, training_state.Position(1), data={})
    training_state.restore(path, again)
print("DONE")
"""
)


def test_golden_logits_and_a_training_step_without_tensorflow(fresh_python):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    golden.require("rsnet_logits_resnet18.npz")
    assert "DONE" in fresh_python(PROGRAM, KERAS_BACKEND="jax", XLA_FLAGS=QUICK)


LOW_BIT = (
    BLOCKED
    + """
import numpy as np
import tempfile
import rs_keras
from rs_keras.checkpoints import lqnet_import, packed
from tests import golden
bits = {"weight_bits": 2, "activation_bits": 2}
model = rs_keras.resnet18((96, 64), 1000, **bits)
lqnet_import.load_variables(model, golden.lq_variables("resnet18_preact_w2a2"))
logits = np.asarray(model(golden.image(96), resolution=96))
expected = golden.arrays("lqnet_logits_resnet18_preact_w2a2.npz")["logits_96"]
np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)

small = rs_keras.resnet18((64, 32), 6, width=0.125, **bits)
small.compile(rs_keras.SGD(0.01))
x = np.random.default_rng(0).integers(0, 256, (4, 70, 90, 3)).astype("uint8")
y = np.arange(4)
first, second = (small.train_on_batch(x, y, return_dict=True) for _ in range(2))
assert np.isfinite([float(first["loss"]), float(second["loss"])]).all()
with tempfile.TemporaryDirectory() as folder:
    packed.pack(small, f"{folder}/small.lq")
    rs_keras.load_packed(f"{folder}/small.lq").predict(x, verbose=0)
quantizer = small.blocks[2].branch[0].quantizer
assert float(quantizer.fits[0]) == 2

try:
    rs_keras.resnet18((64, 32), 6, width=0.125, rest_bits=8, **bits)
except ValueError as error:
    assert "the TensorFlow backend. Received: KERAS_BACKEND=jax" in str(error)
else:
    raise AssertionError("rest_bits=8 must be refused")
print("DONE")
"""
)


@pytest.mark.slow
def test_quantized_golden_logits_and_training_steps_without_tensorflow(fresh_python):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    golden.require("lqnet_logits_resnet18_preact_w2a2.npz")
    assert "DONE" in fresh_python(LOW_BIT, KERAS_BACKEND="jax", XLA_FLAGS=QUICK)

"""What survives: configuration, files, a fresh process; and the summary."""

import json

import keras
import numpy as np
import pytest

import rs_keras

KEYS = (64, 48, 32)


def test_configuration_rebuilds_the_same_network(model):
    config = json.loads(json.dumps(model.get_config()))
    copy = rs_keras.Classifier.from_config(config)
    assert copy.resolutions == KEYS
    assert copy.class_names == list("abcdef")
    assert [(w.name, w.shape) for w in copy.weights] == [
        (w.name, w.shape) for w in model.weights
    ]
    assert json.loads(json.dumps(copy.get_config())) == config


def test_model_that_was_only_compiled_comes_back_with_its_optimizer(tiny, tmp_path):
    model = tiny()
    model.compile(rs_keras.SGD(0.05, momentum=0.8))
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    assert copy.optimizer.momentum == 0.8
    assert len(copy.optimizer.variables) == len(model.optimizer.variables)


def test_formats_that_cannot_be_read_back_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="must end in .keras. Received: .*m.h5"):
        model.save(tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_summary_names_every_layer_with_its_shape(model):
    lines = []
    model.summary(print_fn=lines.append, line_length=100)
    text = "\n".join(lines)
    for name in ("rescaling", "stem_bn", "maxpool", "block", "pool", "head"):
        assert name in text
    assert "?" not in text
    assert "(None, 6)" in text
    # Keras counts the metrics' variables, too; the trainable ones are the network's.
    trainable = sum(np.prod(w.shape) for w in model.trainable_weights)
    assert f"Trainable params: {trainable:,}" in text


def test_backbones_have_a_readable_summary():
    lines = []
    rs_keras.mobilenet_v2((64, 32), 5, width=0.25).summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert "features.17" in text
    assert "?" not in text


@pytest.mark.parametrize("name", ["mixed_bfloat16", "float32"])
def test_a_reloaded_model_keeps_its_precision(tiny, batch, policy, tmp_path, name):
    policy(name)
    model = tiny()
    images, _ = batch()
    expected = model(images, resolution=48)
    model.save(tmp_path / "m.keras")
    policy("float32" if name != "float32" else "mixed_bfloat16")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    assert copy.dtype_policy.name == name
    np.testing.assert_array_equal(copy(images, resolution=48), expected)


RELOAD = """
import json, os, sys
{imports}
import numpy as np
model = keras.saving.load_model(os.environ["MODEL"])
images = np.load(os.environ["DATA"])
logits = {{r: model.predict(images["x"], resolution=r, verbose=0).tolist()
          for r in (64, 48, 32, 40)}}
steps = int(model.optimizer.iterations)
logs = model.train_on_batch(images["x"], images["y"], return_dict=True)
print("RESULT", json.dumps({{
    "logits": logits, "steps": steps, "mode": model.loss.mode,
    "loss": float(logs["loss"]), "alpha": np.asarray(model.alpha).tolist(),
    "weights": [float(np.abs(np.asarray(w)).sum()) for w in model.weights],
    "optimizer": [float(np.abs(np.asarray(v)).sum())
                  for v in model.optimizer.variables]}}))
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import rs_keras, keras",
        "import keras, rs_keras",
    ],
)
def test_a_model_goes_on_in_a_fresh_process(
    tiny, batch, fresh_python, tmp_path, imports
):
    model = tiny()
    rate = keras.optimizers.schedules.CosineDecay(0.05, 10)
    model.compile(
        rs_keras.SGD(rate, weight_decay=1e-2, nesterov=True),
        rs_keras.MultiResolutionDistillation("vanilla", weight=0.5),
    )
    images, labels = batch(side=(70, 90))
    for _ in range(2):
        model.train_on_batch(images, labels)
    path, data = tmp_path / "m.keras", tmp_path / "data.npz"
    model.save(path)
    np.savez(data, x=images, y=labels)
    output = fresh_python(
        RELOAD.format(imports=imports), MODEL=str(path), DATA=str(data)
    )
    line = next(n for n in output.splitlines() if n.startswith("RESULT "))
    got = json.loads(line.removeprefix("RESULT "))

    for r in (64, 48, 32, 40):
        expected = model.predict(images, resolution=r, verbose=0)
        np.testing.assert_array_equal(np.float32(got["logits"][str(r)]), expected)
    assert (got["steps"], got["mode"]) == (2, "vanilla")
    model.reset_metrics()
    loss = model.train_on_batch(images, labels, return_dict=True)["loss"]
    # One graph, two processes: sums may be split otherwise between threads.
    np.testing.assert_allclose(got["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(got["alpha"], model.alpha, rtol=1e-6)
    for name, variables in (
        ("weights", model.weights),
        ("optimizer", model.optimizer.variables),
    ):
        sums = [float(np.abs(np.asarray(v)).sum()) for v in variables]
        np.testing.assert_allclose(got[name], sums, rtol=1e-5)

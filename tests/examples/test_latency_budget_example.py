"""The example runs both layouts of a TFLite file, without TensorFlow."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = "examples/latency_budget.py"
RESOLUTIONS = (48, 32, 16)


class Network(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal((3, 3, 3, 8), (0, 1)))
        self.head = tf.Variable(tf.random.stateless_normal((8, 4), (0, 2)))

    def signature(self, shape, dtype="float32"):
        @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name="image")])
        def run(image):
            x = tf.nn.conv2d(tf.cast(image, "float32") / 255, self.kernel, 2, "SAME")
            logits = tf.reduce_mean(tf.nn.relu(x), (1, 2)) @ self.head
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        return run


def convert(signatures, network, folder):
    tf.saved_model.save(network, folder / "saved", signatures=signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "saved"), signature_keys=list(signatures)
    )
    path = folder / "model.tflite"
    path.write_bytes(converter.convert())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{layout: path}: three signatures, of which one takes uint8; and any size."""
    network = Network()
    fixed = {
        f"r{r}": network.signature((1, r, r, 3), "uint8" if r == 16 else "float32")
        for r in RESOLUTIONS
    }
    anyone = {"serving_default": network.signature((None, None, None, 3))}
    return {
        "signatures": convert(fixed, network, tmp_path_factory.mktemp("fixed")),
        "dynamic": convert(anyone, network, tmp_path_factory.mktemp("dynamic")),
    }


def run(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("layout", ["signatures", "dynamic"])
@pytest.mark.parametrize("budget_ms, smallest", [(1e6, 48), (1e-6, 16)])
def test_it_runs_to_its_summary(files, layout, budget_ms, smallest):
    # Budgets so large and so small that the pace of the machine does not matter.
    given = ["--resolutions=48,32,16"] if layout == "dynamic" else []
    done = run(
        EXAMPLE,
        f"--model={files[layout]}",
        f"--budget_ms={budget_ms}",
        "--frames=30",
        "--load",
        *given,
    )
    assert done.returncode == 0, done.stderr
    assert "the load begins" in done.stdout and "the load has ended" in done.stdout
    assert re.search(r"% of 30 frames within ", done.stdout)
    assert f"{smallest} pixels:" in done.stdout
    assert ("->" in done.stdout) == (smallest == 16)
    assert ("Even the smallest" in done.stdout) == (smallest == 16)


def test_it_imports_neither_tensorflow_nor_keras(files):
    program = (
        f"import runpy, sys; sys.argv = ['', '--model={files['signatures']}', "
        f"'--budget_ms=10', '--frames=3']; "
        f"runpy.run_path('{EXAMPLE}', run_name='__main__'); "
        "print({'tensorflow', 'keras', 'jax', 'absl'} & set(sys.modules))"
    )
    done = run("-c", program)
    assert done.returncode == 0 and done.stdout.endswith("set()\n"), done


@pytest.mark.parametrize(
    "layout, flags, sentence",
    [
        ("dynamic", ["--budget_ms=10"], "--resolutions must be given"),
        ("signatures", ["--budget_ms=10", "--resolutions=48"], "only there. Received"),
        ("signatures", ["--budget_ms=0"], "`budget_ms` must be a positive"),
        (None, ["--budget_ms=10"], "--model must be a .tflite file"),
    ],
)
def test_mistakes_are_told_in_a_sentence(files, layout, flags, sentence):
    done = run(EXAMPLE, f"--model={files.get(layout)}", *flags)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert "Traceback" not in done.stderr

"""KERAS_BACKEND=jax does the same job, and each backend reads the runs of the other."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from tests import commands
from tests import test_resume

pytest.importorskip("jax", reason="the other backend is needed")

# The step, too, is another one: it makes the images.
RUN = ("--resize=device",)
# What a run may ask for, together: low bits, half precision, parts, two devices.
EVERYTHING = (
    "--weight_bits=2",
    "--activation_bits=2",
    "--precision=mixed_float16",
    "--accumulate=2",
    "--activation_memory=one_resolution",
    "--distribute=mirrored",
    "--synchronized_bn",
    *RUN,
)

JAX = {
    "KERAS_BACKEND": "jax",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 "
    "--xla_force_host_platform_device_count=2",
    "JAX_COMPILATION_CACHE_DIR": None,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


@pytest.fixture(scope="module", autouse=True)
def on_jax(tmp_path_factory):
    """Two logical devices; steps that are compiled quickly, and once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in JAX.items():
            patch.setenv(name, value or str(tmp_path_factory.mktemp("compiled")))
        yield


def train(photos, workdir, *flags):
    command = test_resume.command(photos, workdir, "--epochs=2", *flags)
    return commands.succeeds(*command[2:])


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A workdir trained on JAX in one go."""
    workdir = tmp_path_factory.mktemp("jax") / "whole"
    found = train(photos, workdir, *RUN)
    assert "ETA" in found and "ensemble" in found
    return workdir


def test_a_run_that_is_killed_ends_bit_for_bit_alike(whole, photos, tmp_path):
    workdir = tmp_path / "killed"
    command = test_resume.command(photos, workdir, "--epochs=2", *RUN)
    while not test_resume.killed_within_a_write(command, workdir, skip=1):
        assert not (workdir / "results.json").exists(), "it was never hit"
    assert "Going on after " in train(photos, workdir, *RUN)
    test_resume.assert_same_end(whole, workdir)


@pytest.mark.slow
def test_tensorflow_evaluates_and_exports_what_jax_has_trained(whole, tmp_path):
    with zipfile.ZipFile(whole / "model.keras") as file:
        config = json.loads(file.read("config.json"))
    assert config["compile_config"]["jit_compile"] is False  # for TensorFlow
    expected = json.loads((whole / "results.json").read_text())
    workdir, found = f"--workdir={whole}", tmp_path / "found.json"
    commands.succeeds("rs_keras.evaluate", workdir, f"--json={found}")
    assert json.loads(found.read_text()) == expected
    output = f"--output={tmp_path / 'saved_model'}"
    commands.refuses(
        "the TensorFlow backend", "tools.export_saved_model", workdir, output
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in JAX:
            patch.delenv(name)
        commands.succeeds("tools.export_saved_model", workdir, output)
        commands.succeeds("rs_keras.evaluate", workdir, f"--json={found}")
    assert json.loads(found.read_text()) == expected


@pytest.mark.slow
def test_jax_goes_on_with_a_run_of_tensorflow(finished, photos, tmp_path):
    workdir = tmp_path / "moved"
    shutil.copytree(finished, workdir)
    before = lines(workdir)
    flags = ("--epochs=6", "--checkpoint_every=1000")
    assert "Going on after epoch 5 of 6" in train(photos, workdir, *flags)
    after = lines(workdir)
    assert after[:5] == before
    assert after[5]["epoch"] == 6 and after[5]["loss"] < 1.5 * before[4]["loss"]


@pytest.mark.slow
def test_everything_together_runs_and_goes_on(photos, tmp_path):
    output = train(photos, tmp_path / "run", *EVERYTHING, "--epochs=1")
    assert "on 2 devices" in output
    assert "Going on after epoch 1 of 2" in train(photos, tmp_path / "run", *EVERYTHING)
    assert np.isfinite([line["loss"] for line in lines(tmp_path / "run")]).all()


@pytest.mark.parametrize(
    "sentence, flags",
    [
        ("--rest_bits=8 needs the TensorFlow", ("--weight_bits=2", "--rest_bits=8")),
        ("to be said: --synchronized_bn", ("--distribute=mirrored",)),
        ("--distribute=multi_worker needs the", ("--distribute=multi_worker",)),
    ],
)
def test_what_jax_cannot_do_is_refused_by_name(
    photos, tmp_path, monkeypatch, sentence, flags
):
    task = {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    command = test_resume.command(photos, tmp_path / "run", *flags)
    commands.refuses(sentence, *command[2:])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", ["rs_keras.train", "rs_keras.evaluate"])
def test_a_backend_that_is_not_installed_is_named(finished, tmp_path, module):
    data = ["--dataset=shapes"] if module == "rs_keras.train" else []
    workdir = tmp_path / "run" if data else finished
    found = commands.run(
        module,
        *data,
        f"--workdir={workdir}",
        before="import sys; sys.modules['jax'] = None",
    )
    assert found.returncode == 2 and "Traceback" not in found.stderr
    sentence = "KERAS_BACKEND=jax needs jax, which is not installed. Received: "
    assert sentence in found.stderr.splitlines()[-1]

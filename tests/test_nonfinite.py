"""A loss that blows up: the run stops at that step, or goes on without it."""

import json

import numpy as np
import tensorflow as tf

from rs_keras import build
from rs_keras import run as run_lib
from rs_keras import workdir as workdir_lib
from rs_keras.checkpoints import training_state
from rs_keras.training import cluster
from rs_keras.training import devices as devices_lib
from rs_keras.training import interruption
from tests import commands
from tests.parsed_flags import parsed


def test_the_command_stops_at_the_step_and_names_its_images(photos, tmp_path):
    command = (
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{photos}",
        f"--workdir={tmp_path / 'run'}",
        "--epochs=2",
        "--checkpoint_every=1",
        "--learning_rate=1e30",
    )
    found = commands.run(*command)
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "error: Loss and gradients must be finite; --on_nan=skip" in found.stderr
    assert "goes on from epoch-0001-step-000001. Received: step 2 " in found.stderr
    line = json.loads((tmp_path / "run" / "nonfinite.jsonl").read_text())
    assert (line["step"], line["epoch"], len(line["images"])) == (2, 1, 8)
    assert all(f"\n{name}" in found.stderr for name in line["images"])
    # The weights are already lost here: every further step is skipped, until too many.
    found = commands.run(*command, "--on_nan=skip", "--max_skipped_steps=2")
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "Going on with another flag: --on_nan is stop there, skip" in found.stdout
    assert "step 3 (step 3 of epoch 1) is skipped, 2 of at most 2" in found.stdout
    assert "must be finite but for 2 steps (--max_skipped_steps)" in found.stderr


def test_a_run_goes_on_without_a_step_that_is_not_finite(photos, tmp_path, monkeypatch):
    """The third batch has a NaN; what it would have changed stays as it was."""
    config = parsed(
        *commands.TINY[:-1],  # not --threads, which are the test's
        f"--dataset=folder:{photos}",
        f"--workdir={tmp_path / 'run'}",
        "--epochs=1",
        "--on_nan=skip",
        "--max_skipped_steps=1",
    )
    whole = build.train_batches

    def poisoned(*args, **options):
        def poison(step, batch):
            images, labels = batch
            bad = tf.where(step == 2, np.nan, 0.0)
            floats = {k: tf.cast(v, tf.float32) + bad for k, v in images.items()}
            return floats, labels

        return whole(*args, **options).enumerate().map(poison)

    monkeypatch.setattr(build, "train_batches", poisoned)
    workdir = workdir_lib.Workdir(config.workdir)
    devices = devices_lib.devices("none", cluster.Task())
    states = []
    run = run_lib.Run(config, workdir, interruption.Interruption(), devices)
    end = run._step_end

    def step_end(*args):
        arrays = training_state.arrays(run.model)
        states.append({k: v for k, v in arrays.items() if "skipped" not in k})
        end(*args)

    run._step_end = step_end
    run.train()
    run.finish()
    for name, value in states[2].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)
    assert any((states[3][k] != v).any() for k, v in states[2].items())
    line = json.loads(workdir.nonfinite.read_text())
    assert (line["step"], len(set(line["images"]))) == (3, 8)
    metrics = json.loads(workdir.metrics.read_text())
    assert metrics["skipped_steps"] == 1 and np.isfinite(metrics["loss"])
    _, manifest = training_state.read(workdir.checkpoints / "epoch-0001")
    assert manifest["data"]["skipped_steps"] == [3]
    assert workdir.results.exists() and workdir.model.exists()

"""The command lines on real files: train, go on, evaluate, predict, and mistakes."""

import json

import numpy as np
import pytest

from tests import commands


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_learns_and_fills_the_workdir(finished):
    results = json.loads((finished / "results.json").read_text())
    assert list(results["resolutions"]) == ["48", "32"]
    assert results["resolutions"]["48"]["top1"] > 0.6  # three colours, chance is 1/3
    assert results["resolutions"]["48"]["top5"] is None
    assert results["resolutions"]["48"]["macs"] > results["resolutions"]["32"]["macs"]
    assert results["classes"] == ["blue", "green", "red"]
    assert results["skipped_images"] == []
    assert len(results["alpha"]) == 2
    np.testing.assert_allclose(sum(results["alpha"]), 1, rtol=1e-6)
    metrics = lines(finished / "metrics.jsonl")
    assert [m["epoch"] for m in metrics] == [1, 2, 3, 4, 5]
    assert [m["step"] for m in metrics] == [6, 12, 18, 24, 30]
    assert {"loss", "loss_classification", "loss_ensemble", "loss_distillation"} <= set(
        metrics[0]
    )
    assert {"top1_48", "top1_ensemble", "val_loss", "val_top1_32"} <= set(metrics[0])
    assert metrics[4]["loss"] < metrics[0]["loss"]
    assert len(lines(finished / "timing.jsonl")) == 5
    assert list((finished / "tensorboard").glob("events.*"))
    kept = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert kept[-3:] == ["epoch-0003", "epoch-0004", "epoch-0005"]
    assert len(kept) <= 4  # and the best one


def test_evaluate_repeats_the_results_and_tests_other_resolutions(finished, tmp_path):
    out = tmp_path / "evaluation.json"
    text = commands.succeeds(
        *("rs_keras.evaluate", f"--workdir={finished}", f"--json={out}"),
        run=commands.run_python_m,
    )
    assert "ensemble" in text
    results = json.loads((finished / "results.json").read_text())
    assert json.loads(out.read_text()) == results
    commands.succeeds(
        "rs_keras.evaluate",
        f"--workdir={finished}",
        "--resolutions=56,40,32",
        f"--json={out}",
    )
    other = json.loads(out.read_text())
    assert list(other["resolutions"]) == ["56", "40", "32"]
    assert other["ensemble"] is None
    assert other["resolutions"]["32"] == results["resolutions"]["32"]


def test_predict_on_validation_files_equals_evaluate(finished, photos, tmp_path):
    """Counted by hand from predict's classes: the same top-1 as in results.json."""
    out, hits, seen = tmp_path / "p.json", 0, 0
    for name in ("blue", "green", "red"):
        text = commands.succeeds(
            "rs_keras.predict",
            f"--workdir={finished}",
            f"--images={photos}/val/{name}",
            "--resolution=32",
            f"--json={out}",
            run=commands.run if name != "red" else commands.run_python_m,
        )
        assert "0.jpg" in text and "%" in text
        for row in json.loads(out.read_text())["images"]:
            total = sum(p["probability"] for p in row["predictions"])
            np.testing.assert_allclose(total, 1, rtol=1e-5)
            hits += row["predictions"][0]["class"] == name
            seen += 1
    results = json.loads((finished / "results.json").read_text())
    assert hits / seen == results["resolutions"]["32"]["top1"]


def test_views_of_one_resolution_are_trained_and_reported_apart(photos, tmp_path):
    workdir = f"--workdir={tmp_path / 'views'}"
    commands.succeeds(
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{photos}",
        "--resolutions=32",
        "--views=2",
        "--crops=per_resolution",
        "--epochs=1",
        workdir,
    )
    results = json.loads((tmp_path / "views" / "results.json").read_text())
    assert list(results["resolutions"]) == ["32_view1", "32_view2"]
    assert len(results["alpha"]) == 2
    out = tmp_path / "views.json"
    commands.succeeds("rs_keras.evaluate", workdir, f"--json={out}")
    assert json.loads(out.read_text()) == results


def test_images_that_the_step_makes_train_as_well(photos, tmp_path):
    commands.succeeds(
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{photos}",
        f"--workdir={tmp_path}",
        "--epochs=5",
        "--resize=device",
        "--accumulate=2",
        "--activation_memory=one_resolution",
    )
    metrics = lines(tmp_path / "metrics.jsonl")
    assert metrics[4]["loss"] < metrics[0]["loss"]
    assert metrics[4]["top1_32"] > 0.6


def test_init_from_copies_weights_and_says_what_was_reset(finished, tmp_path):
    text = commands.succeeds(
        "rs_keras.train",
        *commands.TINY,
        "--dataset=shapes",
        "--resolutions=40,32",
        "--batch_size=512",
        "--epochs=1",
        "--learning_rate=0",
        f"--init_from={finished}",
        f"--workdir={tmp_path / 'second'}",
    )
    assert "the head was reset" in text and "alpha was reset" in text
    checkpoint = "checkpoints/epoch-000{}/arrays.npz"
    with (
        np.load(finished / checkpoint.format(5)) as first,
        np.load(tmp_path / "second" / checkpoint.format(1)) as second,
    ):
        # The learning rate is 0, so the weights are still those of the first run.
        kernel = "resnet18/conv1_bn/conv1/kernel"
        np.testing.assert_array_equal(first[kernel], second[kernel])
        gamma = "resnet18/conv1_bn/bn1/gamma"  # rows 48, 32 -> 40, 32
        np.testing.assert_allclose(second[gamma][0], first[gamma].mean(0), rtol=1e-6)
        np.testing.assert_array_equal(second[gamma][1], first[gamma][1])


def test_a_low_bit_run_is_packed_and_the_file_is_evaluated(finished, photos, tmp_path):
    workdir, output, out = (tmp_path / name for name in ("low", "m.lq", "out.json"))
    data = f"--dataset=folder:{photos}"
    low = (*commands.TINY, data, "--weight_bits=2", "--epochs=1")
    text = commands.succeeds(
        "rs_keras.train", *low, f"--init_from={finished}", f"--workdir={workdir}"
    )
    assert "the bases of weights were fitted" in text
    commands.succeeds("tools.pack", f"--workdir={workdir}", f"--output={output}")
    packed = (f"--workdir={workdir}", f"--packed={output}", f"--json={out}")
    commands.succeeds("rs_keras.evaluate", *packed)
    # The logits are bit-identical, so every number is.
    results = json.loads((workdir / "results.json").read_text())
    assert json.loads(out.read_text()) == results
    again = ("--learning_rate=0", f"--init_from={output}")
    commands.succeeds("rs_keras.train", *low, *again, f"--workdir={tmp_path / 'more'}")
    commands.refuses(
        "with resnet18 2/32, --scaling=unit, for resnet18 2/2",
        "rs_keras.train",
        *low,
        "--activation_bits=2",
        f"--init_from={output}",
        f"--workdir={tmp_path / 'other'}",
    )
    output.write_bytes(output.read_bytes()[:-1])
    commands.refuses("Received: ", "rs_keras.evaluate", *packed)


@pytest.mark.slow
def test_the_quickstart_learns_and_resolution_matters(tmp_path):
    """The whole recipe; chance is 1/14. Its detail classes need the pixels."""
    workdir = tmp_path / "quickstart"
    commands.succeeds(
        "rs_keras.train", "--flagfile=configs/quickstart.cfg", f"--workdir={workdir}"
    )
    results = json.loads((workdir / "results.json").read_text())["resolutions"]
    assert results["64"]["top1"] > 0.6
    assert results["64"]["top1"] > results["32"]["top1"] + 0.05

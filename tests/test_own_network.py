"""`train --model=FILE.keras`: a Keras network of the user's own."""

import json
import shutil
import zipfile

import pytest

from tests import commands
from tests.models import networks

FLAGS = (
    "--resolutions=48,32",
    "--batch_size=8",
    "--learning_rate=0.02",
    "--threads=2",
    "--seed=1",
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "net.keras"
    networks.network(classes=7).save(path)
    return path


def test_a_network_of_ones_own_is_trained_resumed_and_evaluated(file, photos, tmp_path):
    mine = tmp_path / "mine.keras"
    shutil.copy(file, mine)
    run = (f"--model={mine}", f"--dataset=folder:{photos}", *FLAGS)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    output = commands.succeeds(
        "rs_keras.train", *run, f"--workdir={whole}", "--epochs=2"
    )
    assert "the head starts anew: 7 classes there, 3 here" in output
    commands.succeeds("rs_keras.train", *run, f"--workdir={parts}", "--epochs=2")
    mine.unlink()  # the run has its own copy
    commands.succeeds("rs_keras.train", *run, f"--workdir={parts}", "--epochs=3")
    assert len((parts / "metrics.jsonl").read_text().splitlines()) == 3
    out = tmp_path / "found.json"
    commands.succeeds(
        "rs_keras.evaluate", f"--workdir={whole}", "--bn=calibrate", f"--json={out}"
    )
    expected = json.loads((whole / "results.json").read_text())
    assert json.loads(out.read_text())["resolutions"] == expected["resolutions"]
    commands.succeeds(
        "tools.export_tflite",
        f"--workdir={whole}",
        "--precision=float32",
        f"--output={tmp_path / 'm.tflite'}",
    )


def test_a_start_without_a_checkpoint_takes_the_file_that_is_named_now(
    file, photos, tmp_path
):
    """As after a first start that was killed in its first epoch, with another file."""
    run = (f"--dataset=folder:{photos}", *FLAGS, "--epochs=1")
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "network.keras").write_text("of another start")
    (workdir / "flags.cfg").write_text("--model=other.keras\n")
    run += (f"--model={file}", f"--workdir={workdir}")
    commands.succeeds("rs_keras.train", *run)
    assert (workdir / "network.keras").read_bytes() == file.read_bytes()


def _lambda(path):
    import keras

    image = keras.Input((48, 48, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Lambda(lambda x: x)(image))
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, x).save(path)


def _bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, bytes(30_000_000))


def _text(path):
    path.write_text("no network")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_lambda, "Lambda"),
        (_bomb, "unpack to at most 20 times its size"),
        (_text, "must be a whole .keras file"),
        (lambda path: None, "A .keras file is needed"),
    ],
)
def test_files_that_are_no_network_are_refused(make, words, photos, tmp_path):
    path = tmp_path / "bad.keras"
    make(path)
    commands.refuses(
        words,
        "rs_keras.train",
        *(f"--model={path}", f"--dataset=folder:{photos}", *FLAGS),
        f"--workdir={tmp_path / 'run'}",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model=resnet19",), "or a .keras file. Received: --model=resnet19"),
        (("--model=a.keras", "--width=0.5"), "--width is for the networks of this"),
        (("--model=a.keras", "--method=shared_bn"), "--method=shared_bn is for"),
    ],
)
def test_flags_that_contradict_are_named(flags, words, photos, tmp_path):
    dataset = f"--dataset=folder:{photos}"
    workdir = f"--workdir={tmp_path / 'run'}"
    commands.refuses(words, "rs_keras.train", dataset, workdir, *flags)

"""Mistakes on the command lines: one sentence, exit code 2, nothing touched."""

import shutil

from rs_keras import workdir
from tests import commands


def test_mistakes_of_training_are_one_sentence(finished, photos, tmp_path):
    before = sorted((p.name, p.stat().st_mtime_ns) for p in finished.rglob("*"))
    base = ("rs_keras.train", *commands.TINY, "--epochs=5")
    data = f"--dataset=folder:{photos}"
    fresh = f"--workdir={tmp_path / 'fresh'}"
    commands.refuses(
        "belongs to a run with other flags; choose another",
        *base,
        data,
        f"--workdir={finished}",
        "--learning_rate=0.5",
    )
    commands.refuses(
        "--weight_bits is 32 there, 2 here",
        *base,
        data,
        f"--workdir={finished}",
        "--weight_bits=2",
    )
    commands.refuses(
        "The workdir already has a run",
        *base,
        data,
        f"--workdir={finished}",
        "--resume=never",
    )
    other = shutil.copytree(photos, tmp_path / "other")
    stopped = tmp_path / "stopped"
    shutil.copytree(finished, stopped)
    flags = (stopped / "flags.cfg").read_text()
    (stopped / "flags.cfg").write_text(flags.replace(str(photos), str(other)))
    (other / "train" / "red").rename(other / "train" / "aqua")
    (other / "val" / "red").rename(other / "val" / "aqua")
    commands.refuses(
        "The dataset must be that of the run",
        *base,
        f"--dataset=folder:{other}",
        f"--workdir={stopped}",
    )
    for split in ("train", "val"):
        (other / split / "aqua").rename(other / split / "red")
    (other / "val" / "red" / "0.jpg").unlink()  # accuracies would be of two sets
    commands.refuses(
        "The dataset must be that of the run",
        *base,
        f"--dataset=folder:{other}",
        f"--workdir={stopped}",
    )
    commands.refuses("--num_classes must be the", *base, data, fresh, "--num_classes=7")
    commands.refuses("at least 32", *base, data, fresh, "--resolutions=48,16")
    commands.refuses("batch", *base, data, fresh, "--batch_size=100")
    commands.refuses("", *base, "--dataset=folder:/no/such/folder", fresh)
    commands.refuses("", *base, "--dataset=mnist", fresh)
    commands.refuses("needed", *base, data, fresh, "--init_from=/no/such/run")
    (tmp_path / "broken.keras").write_bytes(b"PK")
    commands.refuses(
        "must be a whole .keras file",
        *base,
        data,
        fresh,
        f"--init_from={tmp_path / 'broken.keras'}",
    )
    commands.refuses(
        "same --model, --width, bits and",
        *base,
        data,
        fresh,
        "--width=0.25",
        f"--init_from={finished}",
    )
    assert not (tmp_path / "fresh").exists()
    after = sorted((p.name, p.stat().st_mtime_ns) for p in finished.rglob("*"))
    assert before == after


def test_training_refuses_other_backends(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    commands.refuses(
        "on the TensorFlow and the JAX backend. Received: KERAS_BACKEND=numpy",
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{photos}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert not (tmp_path / "run").exists()


def test_numbers_replace_no_file_of_a_run(finished, tmp_path):
    """Nor anything else that is no .json file."""
    (tmp_path / "notes.txt").write_text("mine")
    for path in (finished / "model.keras", finished / "results.json", "notes.txt"):
        path = tmp_path / path
        before = path.read_bytes()
        flags = (f"--workdir={finished}", f"--json={path}")
        for tool in ("rs_keras.evaluate", "tools.bn_parameters"):
            commands.refuses("none of a run's own", tool, *flags)
        assert path.read_bytes() == before


def test_mistakes_of_evaluate_and_predict_are_one_sentence(finished, photos, tmp_path):
    workdir = f"--workdir={finished}"
    commands.refuses(
        "must hold a finished run", "rs_keras.evaluate", f"--workdir={tmp_path}"
    )
    commands.refuses(
        "--resolutions must be at least 32",
        "rs_keras.evaluate",
        workdir,
        "--resolutions=8",
    )
    commands.refuses(
        "classes of the network", "rs_keras.evaluate", workdir, "--dataset=shapes"
    )
    image = f"--images={photos}/val/red/0.jpg"
    commands.refuses(
        "directory that exists", "rs_keras.evaluate", workdir, "--json=/no/x.json"
    )
    commands.refuses(
        "at least 32", "rs_keras.predict", workdir, image, "--resolution=8"
    )
    commands.refuses("", "rs_keras.predict", workdir, f"--images={tmp_path}/none.jpg")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    commands.refuses("broken.jpg", "rs_keras.predict", workdir, f"--images={broken}")


def test_a_workdir_in_use_is_refused(tmp_path):
    with workdir.Workdir(tmp_path / "run").locked():
        commands.refuses(
            "one process at a time trains in it. Received: ",
            "rs_keras.train",
            "--dataset=shapes",
            f"--workdir={tmp_path / 'run'}",
        )

"""Exporting a finished run to one .tflite file as a user does."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from rs_keras.export import size
from tests import commands
from tests.export import files
from tools import export_tflite

MODULE = "tools.export_tflite"


def _patched(change, *flags):
    return commands.run(MODULE, *flags, before=change)


def _report(path):
    return json.loads(path.with_name(f"{path.name}.report.json").read_text())


# Three classes of few images: a tie that turns is a large share of them.
KINDS = {
    ("signatures", "int8"): ("--min_agreement=0.9",),
    ("dynamic", "int8_weights"): (
        "--layout=dynamic",
        "--input_dtype=uint8",
        "--min_agreement=0.9",
    ),
}


@pytest.mark.parametrize("layout, precision", KINDS)
def test_a_run_becomes_one_file_that_was_compared_with_it(
    layout, precision, finished, tmp_path
):
    output, numbers = tmp_path / "model.tflite", tmp_path / "numbers.json"
    printed = commands.succeeds(
        MODULE,
        f"--workdir={finished}",
        f"--output={output}",
        *KINDS[layout, precision],
        "--threads=1",
        f"--json={numbers}",
    )
    data, report = output.read_bytes(), _report(output)
    assert report["sha256"] == hashlib.sha256(data).hexdigest()
    assert report["bytes"] == len(data)
    assert report["bytes_by_kind"] == size.bytes_by_kind(data)
    assert (report["layout"], report["precision"]) == (layout, precision)
    assert report["resolutions"] == [48, 32]
    assert report["classes"] == ["blue", "green", "red"]
    assert json.loads(numbers.read_text()) == report
    verification = report["verification"]
    # All of the run's 24 validation images; three classes are too few to conclude.
    assert verification["images"] == 24
    assert verification["min_agreement"] == 0.9
    titles = {
        "dynamic": [f"serving_default {r}" for r in (48, 40, 32)],
        "signatures": ["r48", "r32"],
    }[layout]
    assert list(verification["signatures"]) == titles
    lines = printed.splitlines()
    assert lines[0] == f"Converting resnet18 ({layout}, {precision})"
    assert lines[1] == "Comparing it with the network on 24 images of each size"
    assert lines[2:] == list(export_tflite.lines(report, output))
    assert lines[2].startswith(f"{output}: {len(data):,} bytes, sha256 ")
    assert set(report["memory"]) == {"interpreter", "compiled_model"}
    for name in ("copies", "products"):
        assert (name in lines[4]) == bool(report["kernels"][name])
        if report["kernels"][name]:
            del lines[4]
    for line, (api, used) in zip(lines[4:6], report["memory"].items(), strict=True):
        assert used["bytes"] > 0 and used["ratio"] > 0
        assert f"MB after running all ({api})" in line
    assert lines[6].startswith("  24 images, error at most ")
    assert lines[7].split() == [
        "signature",
        "error",
        "of",
        "all",
        "agreement",
        "near-ties",
        "delegated",
    ]
    for line, (title, row) in zip(
        lines[8:], verification["signatures"].items(), strict=True
    ):
        assert line.startswith(title) and "inconclusive" in line
        assert row["error"] <= verification["tolerance"]
        assert row["agreement"] >= 0.9
        for operator in row["fallbacks"]:
            assert operator in line
    key = titles[0].partition(" ")[0]
    image = np.zeros((1, 48, 48, 3), np.uint8)
    assert files.run(data, key, image)["probabilities"].shape == (1, 3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.tflite", "model.tflite.report.json", "numbers.json"]


@pytest.mark.slow
def test_without_its_validation_set_a_run_needs_images_or_no_comparison(
    finished, photos, tmp_path
):
    run, few = tmp_path / "run", tmp_path / "few"
    shutil.copytree(finished, run)
    shutil.copytree(photos / "val" / "red", few)
    flags = (run / "flags.cfg").read_text()
    assert str(photos) in flags
    moved = flags.replace(str(photos), str(tmp_path / "moved"))
    (run / "flags.cfg").write_text(moved)
    output = tmp_path / "model.tflite"
    base = (MODULE, f"--workdir={run}", f"--output={output}")
    commands.refuses(
        "The run's own images (val) cannot be read; name others with --verify_images=, "
        "or --verify=off.",
        *base,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "run"]
    with_images = (*base, "--resolutions=32", f"--verify_images={few}")
    commands.refuses(
        "The run's own images (train) cannot be read; name others with "
        "--calibration_images=.",
        *with_images,
    )
    commands.succeeds(
        *(*with_images, f"--calibration_images={few}", "--min_agreement=0.8"),
        run=commands.run_python_m,
    )
    report = _report(output)
    assert report["resolutions"] == [32]
    assert report["verification"]["images"] == 8
    assert list(report["verification"]["signatures"]) == ["r32"]
    commands.refuses("The output exists; choose another, or --overwrite", *base)
    # The report alone is not replaced, either.
    before = output.read_bytes()
    output.unlink()
    commands.refuses("The output exists; choose another, or --overwrite", *base)
    output.write_bytes(before)
    printed = commands.succeeds(
        *base, "--precision=float16", "--verify=off", "--overwrite"
    )
    assert "not compared with the network (--verify=off)" in printed
    report = _report(output)
    assert report["verification"] == "off" and report["precision"] == "float16"
    assert report["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert output.read_bytes() != before


def test_mistakes_are_one_sentence_and_nothing_is_written(finished, photos, tmp_path):
    output = tmp_path / "model.tflite"
    run = f"--workdir={finished}"

    def refuses(sentence, *flags, workdir=run, output=output):
        commands.refuses(sentence, MODULE, workdir, f"--output={output}", *flags)

    refuses("must hold a finished run", workdir=f"--workdir={tmp_path}")
    refuses("in a directory that exists", output=tmp_path / "no" / "model.tflite")
    (tmp_path / "taken").mkdir()
    refuses("The output must be a file", "--overwrite", output=tmp_path / "taken")
    refuses("--json must not be the output", f"--json={output}.report.json")
    refuses(
        "`resolutions` go with the layout signatures. Received: resolutions=(48,)",
        "--resolutions=48",
        "--layout=dynamic",
        "--precision=float32",
    )
    refuses(
        "--verify_images go with --verify=on",
        "--verify=off",
        f"--verify_images={photos}",
    )
    refuses(
        "of the layout dynamic must be one of", "--layout=dynamic", "--precision=int8"
    )
    refuses("lq is for networks trained with --weight_bits", "--precision=lq")
    refuses(
        "--calibration_images go with files that compute with integers",
        "--precision=float32",
        f"--calibration_images={photos}",
    )
    refuses(
        "--verify_images: Images must be an existing",
        f"--verify_images={tmp_path / 'none'}",
    )
    broken = tmp_path / "taken" / "broken.jpg"
    broken.write_bytes(b"not an image")
    refuses("broken.jpg", f"--verify_images={broken}")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_a_directory_that_cannot_be_written_is_refused(finished, tmp_path):
    # Not by its mode: the tests may be run by root, who writes everywhere.
    denied = "import os; os.access = lambda path, mode, **_: mode != os.W_OK"
    output = tmp_path / "model.tflite"
    found = _patched(denied, f"--workdir={finished}", f"--output={output}")
    assert found.returncode == 2, found.stderr
    assert found.stderr.strip().splitlines()[-1] == (
        "error: The output must be in a directory that can be written. "
        f"Received: {output}"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_the_network_is_not_written(finished, tmp_path):
    flags = (f"--workdir={finished}", f"--output={tmp_path / 'model.tflite'}")
    verify = "from rs_keras.export import verify"
    found = _patched(f"{verify}; verify.TOLERANCES['int8'] = 1e-9", *flags)
    assert found.returncode == 1, found.stderr
    message = found.stderr.strip().splitlines()[-1]
    assert message.startswith("error: The logits of r48 differ from the network's by ")
    assert message.endswith("; int8 allows 1e-09. Nothing was written.")
    # An agreement that the network itself would not have.
    disagree = (
        "verify.compare = lambda *a, c=verify.compare, **o: "
        "c(*a, **o) | {'agreement': .9}"
    )
    asked = "--min_agreement=0.95"
    found = _patched(f"{verify}; {disagree}", *flags, asked)
    assert found.returncode == 1, found.stderr
    assert found.stderr.strip().splitlines()[-1] == (
        "error: r48 agrees with the network on the class of 90.0% of the images; "
        "--min_agreement asks for 95.0%. Nothing was written."
    )
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(finished, tmp_path):
    output = tmp_path / "model.tflite"
    output.write_bytes(b"what was there")
    flags = (f"--workdir={finished}", f"--output={output}", "--verify=off")
    full = "raise_ = lambda fd: (_ for _ in ()).throw(OSError(28, os.strerror(28)))"
    found = _patched(f"import os; {full}; os.fsync = raise_", *flags, "--overwrite")
    assert found.returncode == 2, found.stderr
    message = found.stderr.strip().splitlines()[-1]
    assert message.startswith("error: [Errno 28] No space left on device. Received: ")
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == [output]
    assert output.read_bytes() == b"what was there"


def test_parameters_beyond_half_precision_are_one_sentence(tiny, tmp_path):
    model = tiny()
    model.head.kernel.assign(np.full(model.head.kernel.shape, 1e5))
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "model.keras")
    commands.refuses(
        "float16 has no room for some parameters of the network; choose another "
        "precision. Received: values up to 1e+05",
        MODULE,
        f"--workdir={tmp_path / 'run'}",
        f"--output={tmp_path / 'model.tflite'}",
        "--precision=float16",
        "--verify=off",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

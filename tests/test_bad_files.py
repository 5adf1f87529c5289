"""Training and prediction with a class of nasty files: all is named, none crashes."""

import json
import os
import shutil

from tests import commands
from tests.data import nasty


def test_a_class_of_nasty_files_is_trained_on_and_predicted(finished, photos, tmp_path):
    expected = nasty.expectations()
    root = tmp_path / "set"
    shutil.copytree(nasty.files(), root / "nasty")
    # Large, and no more of a test than the others.
    (root / "nasty" / "huge_9000x9000_gray.jpg").unlink()
    (root / "nasty" / "big_6000x4000.jpg").unlink()
    shutil.copytree(photos / "train" / "red", root / "red")
    workdir = tmp_path / "run"
    found = commands.run(
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{root}",
        f"--workdir={workdir}",
        "--epochs=1",
    )
    assert found.returncode == 0, found.stdout + found.stderr
    results = json.loads((workdir / "results.json").read_text())
    skipped = {row["file"].partition("/")[2]: row for row in results["skipped_images"]}
    assert all(row["file"].startswith("nasty/") for row in skipped.values())
    assert list(skipped) == sorted(skipped) and all(
        r["reason"] for r in skipped.values()
    )
    for name, what in expected.items():
        assert what not in nasty.KEPT or name not in skipped, skipped[name]
        assert what not in nasty.SKIPPED or name in skipped, name
        assert found.stderr.count(f"/{name} is skipped: ") == (name in skipped), name

    out = tmp_path / "p.json"
    found = commands.run(
        "rs_keras.predict",
        f"--workdir={finished}",
        f"--images={root / 'nasty'}",
        f"--json={out}",
    )
    assert found.returncode == 0, found.stdout + found.stderr
    answer = json.loads(out.read_text())
    seen = {row["image"].partition("/nasty/")[2] for row in answer["images"]}
    missing = {row["file"].partition("/nasty/")[2] for row in answer["skipped_images"]}
    # By name, of the kinds that are read, and then by content.
    assert seen | missing == {
        name
        for name in expected
        if name.lower().endswith((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"))
        and not name.startswith((".", "huge_9000", "big_"))
    }
    assert missing == {name for name in skipped if name in seen | missing}
    for name in missing:
        assert found.stderr.count(f"/{name} is skipped: ") == 1


def test_an_image_that_goes_bad_after_the_scan_is_named(photos, tmp_path):
    root, workdir = tmp_path / "set", tmp_path / "run"
    shutil.copytree(photos, root)
    arguments = (
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{root}",
        f"--workdir={workdir}",
    )
    commands.succeeds(*arguments, "--epochs=1")
    bad = root / "train" / "red" / "7.jpg"
    state = bad.stat()
    bad.write_bytes(b"x" * state.st_size)
    os.utime(bad, ns=(state.st_atime_ns, state.st_mtime_ns))
    commands.refuses(
        f"is damaged or of an unknown format. Received: {bad}",
        *arguments,
        "--epochs=2",
    )

"""What the smallest resolution costs each class of a real run."""

import json

from tests import commands

TOOL = "tools.class_changes"


def test_changes_and_images_agree_with_the_accuracies(finished, photos, tmp_path):
    out, plot, shown = (tmp_path / n for n in ("a.json", "a.svg", "b.png"))
    commands.succeeds(
        TOOL,
        f"--workdir={finished}",
        f"--json={out}",
        f"--plot={plot}",
        f"--examples={shown}",
    )
    found = json.loads(out.read_text())
    results = json.loads((finished / "results.json").read_text())["resolutions"]
    rows = found["classes"].values()
    for key, side in (("largest", "48"), ("smallest", "32")):
        top1 = sum(row[key] * row["images"] for row in rows) / 24
        assert abs(top1 - results[side]["top1"]) < 1e-9
    difference = found["counts"]["only at 48"] - found["counts"]["only at 32"]
    expected = 24 * (results["48"]["top1"] - results["32"]["top1"])
    assert abs(difference - expected) < 1e-6
    for kind, names in found["images"].items():
        assert len(names) == found["counts"][kind]
        assert all(name.startswith(str(photos / "val")) for name in names)
    assert "<svg" in plot.read_text() and shown.stat().st_size > 1000


def test_mistakes_are_one_sentence(finished, tmp_path):
    commands.refuses("finished run", TOOL, f"--workdir={tmp_path}")
    commands.refuses(
        "--examples must be", TOOL, f"--workdir={finished}", "--examples=a"
    )

"""Features of a real run, prepared in two ways."""

import json

import numpy as np

from tests import commands

TOOL = "tools.activations"


def test_gaps_are_measured_and_drawn(finished, tmp_path):
    out, plot = tmp_path / "found.json", tmp_path / "cdf.svg"
    flags = (f"--workdir={finished}", f"--json={out}")
    printed = commands.succeeds(TOOL, *flags, f"--plot={plot}", "--batch_size=7")
    found = json.loads(out.read_text())
    assert found["images"] == 24 and list(found["resolutions"]) == ["48", "32"]
    for row in found["resolutions"].values():
        assert 0 < row["gap"] < 1 and f"{row['gap']:.4f}" in printed
        assert len(row["train"]) == len(found["shares"]) == 101
        # Behind a ReLU, and sorted.
        assert row["test"][0] >= 0 and np.all(np.diff(row["test"]) >= 0)
    assert "<svg" in plot.read_text()
    commands.succeeds(TOOL, *flags)
    again = json.loads(out.read_text())  # the same crops, other batches
    for side, row in again["resolutions"].items():
        expected = found["resolutions"][side]["gap"]
        np.testing.assert_allclose(row["gap"], expected, atol=1e-3)


def test_mistakes_are_one_sentence(finished, tmp_path):
    commands.refuses("--workdir is needed", TOOL)
    commands.refuses("finished run", TOOL, f"--workdir={tmp_path}")
    commands.refuses(".png or .svg", TOOL, f"--workdir={finished}", "--plot=a.gif")

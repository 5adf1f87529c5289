"""The hit/miss matrix of real runs."""

import json

import pytest

from tests import commands

TOOL = "tools.hit_miss"


@pytest.fixture(scope="module")
def single(photos, tmp_path_factory):
    """An individual network of 64 pixels."""
    workdir = tmp_path_factory.mktemp("single") / "i_net-64"
    commands.succeeds(
        "rs_keras.train",
        *commands.TINY,
        "--method=single",
        "--resolutions=64",
        f"--dataset=folder:{photos}",
        f"--workdir={workdir}",
        "--epochs=1",
    )
    return workdir


def test_matrix_agrees_with_the_accuracies(finished, tmp_path):
    out, plot = tmp_path / "found.json", tmp_path / "matrix.png"
    printed = commands.succeeds(
        TOOL, f"--workdir={finished}", f"--json={out}", f"--plot={plot}"
    )
    found = json.loads(out.read_text())
    results = json.loads((finished / "results.json").read_text())["resolutions"]
    shares = found["hit_miss"]
    assert found["images"] == 24 and set(shares) == {"48", "32"}
    difference = results["48"]["top1"] - results["32"]["top1"]
    gained, lost = shares["32"]["48"], shares["48"]["32"]
    assert abs(gained - lost - difference) < 1e-9
    assert f"{100 * gained:.1f}" in printed
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_individual_networks_stand_for_their_resolutions(finished, single, tmp_path):
    out = tmp_path / "found.json"
    commands.succeeds(TOOL, f"--workdir={finished},{single}", f"--json={out}")
    assert list(json.loads(out.read_text())["hit_miss"]) == ["64", "48", "32"]


def test_mistakes_are_one_sentence(finished, single, tmp_path):
    commands.refuses("At least two resolutions", TOOL, f"--workdir={single}")
    commands.refuses("with 64 again", TOOL, f"--workdir={single},{single}")
    commands.refuses("finished run", TOOL, f"--workdir={finished},{tmp_path}")
    commands.refuses(".png or .svg", TOOL, f"--workdir={finished}", "--plot=a.gif")
    commands.refuses("--workdir is needed", TOOL)

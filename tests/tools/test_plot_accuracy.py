"""Curves of several networks, from files that runs and evaluations wrote."""

import json

import pytest

from rs_keras.evaluation import curves
from tests import commands

TOOL = "tools.plot_accuracy"


def result(tops, untrained=(), factor=1):
    rows = {str(r): {"top1": t, "macs": factor * r * r} for r, t in tops.items()}
    return {"resolutions": rows, "untrained": {str(r): {} for r in untrained}}


@pytest.fixture
def files(tmp_path):
    """Two seeds of one network, and two individual networks."""
    found = {
        "seed0": result({64: 0.5, 48: 0.4, 32: 0.2}, untrained=[48]),
        "seed1": result({64: 0.7, 48: 0.6, 32: 0.4}, untrained=[48]),
        "i64": result({64: 0.6}),
        "i32": result({32: 0.5}),
        "wide": result({64: 0.9}, factor=2),
        "views": {"resolutions": {"32_view1": {"top1": 0.1, "macs": 1}}},
    }
    for name, value in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "text.json").write_text("[1, 2]")
    return {path.stem: str(path) for path in tmp_path.glob("*.json")}


def test_seeds_are_averaged_and_individual_networks_joined(files):
    read = curves.read
    both = curves.points([read(files["seed0"]), read(files["seed1"])])
    assert [p["resolution"] for p in both] == [64, 48, 32]
    assert [round(p["top1"], 9) for p in both] == [0.6, 0.5, 0.3]
    assert [p["trained"] for p in both] == [True, False, True]
    assert {p["networks"] for p in both} == {2}
    joined = curves.points([read(files["i32"]), read(files["i64"])])
    assert [(p["resolution"], p["macs"]) for p in joined] == [(64, 4096), (32, 1024)]


def test_differences_are_points_above_the_individual_networks(files, tmp_path):
    plot, out = tmp_path / "curves.svg", tmp_path / "curves.json"
    flags = (f"--plot={plot}", f"--json={out}")
    one = (f"--curve=both={files['i64']},{files['i32']}",)
    base = f"--relative_to={files['seed0']}"
    commands.succeeds(TOOL, *flags, *one, base)
    found = json.loads(out.read_text())["curves"]["both"]
    assert [round(p["difference"], 6) for p in found] == [10.0, 30.0]
    base = f"--relative_to={files['i64']}"
    commands.refuses("none of 32, but of (64,)", TOOL, *flags, *one, base)


@pytest.mark.parametrize("against", ["resolution", "multiply_adds"])
def test_curves_are_drawn_and_written(files, finished, tmp_path, against):
    plot, out = tmp_path / "curves.svg", tmp_path / "out" / "curves.json"
    out.parent.mkdir()
    commands.succeeds(
        TOOL,
        f"--curve=RS-Net={files['seed0']},{files['seed1']}",
        f"--curve=run={finished}",
        f"--against={against}",
        f"--plot={plot}",
        f"--json={out}",
    )
    found = json.loads(out.read_text())["curves"]
    assert list(found) == ["RS-Net", "run"]
    results = json.loads((finished / "results.json").read_text())["resolutions"]
    assert [p["top1"] for p in found["run"]] == [r["top1"] for r in results.values()]
    assert "<svg" in plot.read_text()


def test_mistakes_are_one_sentence(files, tmp_path):
    plot = f"--plot={tmp_path / 'a.png'}"
    for words, arguments in (
        ("--curve is needed", [plot]),
        ("--plot is needed", [f"--curve=a={files['i32']}"]),
        ("must be TITLE=PATH", [plot, f"--curve={files['i32']}"]),
        ("with another title", [plot, *[f"--curve=a={files['i32']}"] * 2]),
        ("what `evaluate --json` wrote", [plot, f"--curve=a={files['text']}"]),
        ("must hold a finished run", [plot, f"--curve=a={tmp_path}"]),
        ("same multiply-adds", [plot, f"--curve=a={files['i64']},{files['wide']}"]),
        ("one of several views", [plot, f"--curve=a={files['views']}"]),
    ):
        commands.refuses(words, TOOL, *arguments)
    assert not (tmp_path / "a.png").exists()

"""Measuring .tflite files as a user does."""

import json

import pytest

from rs_keras.export import tflite
from tests import commands
from tools import benchmark_tflite

TOOL = "tools.benchmark_tflite"


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A workdir, and in it a file of either layout."""
    path = tmp_path_factory.mktemp("runs") / "run"
    path.mkdir()
    model = tiny()
    model.save(path / "model.keras")
    accuracies = {"64": {"top1": 0.7}, "48": {"top1": 0.6}, "32": {"top1": 0.5}}
    (path / "results.json").write_text(json.dumps({"resolutions": accuracies}))
    for layout in tflite.LAYOUTS:
        data, _ = tflite.convert(model, layout)
        (path / f"{layout}.tflite").write_bytes(data)
    return path


def test_files_are_compared_with_one_for_each_resolution(run, tmp_path):
    picture, numbers = tmp_path / "picture.png", tmp_path / "report.json"
    paths = [run / f"{layout}.tflite" for layout in ("dynamic", "signatures")]
    printed = commands.succeeds(
        TOOL,
        f"--model={paths[0]},{paths[1]}",
        f"--workdir={run}",
        "--runs=3",
        "--api=interpreter,compiled_model",
        f"--plot={picture}",
        f"--json={numbers}",
        run=commands.run_python_m,
    )
    report = json.loads(numbers.read_text())
    assert printed.strip().endswith("\n".join(benchmark_tflite.lines(report)))
    assert max(map(len, printed.splitlines())) <= 100
    stock, *files = report["files"]
    assert stock["title"] == "one file per resolution"
    assert len(stock["paths"]) == 3
    assert [file["bytes"] for file in files] == [p.stat().st_size for p in paths]
    assert stock["bytes"] > 2 * files[0]["bytes"]
    for file in report["files"]:
        assert list(file["apis"]) == ["interpreter", "compiled_model"]
        for api in file["apis"].values():
            assert list(api["resolutions"]) == ["64", "48", "32"]
            assert all(row["ratio"] > 0 for row in api["resolutions"].values())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [picture, numbers]


def test_other_sizes_are_asked_for(run):
    printed = commands.succeeds(
        TOOL,
        f"--model={run / 'dynamic.tflite'}",
        "--resolutions=40,56",
        "--runs=1",
        "--api=interpreter",
    )
    rows = [line.split() for line in printed.splitlines()]
    assert [row[0] for row in rows[-2:]] == ["56", "40"]


def test_the_table_says_what_cannot_be_measured():
    row = {"first_ms": 1.0, "median_ms": 1.0, "p90_ms": 1.0, "ratio": None}
    found = {
        "load_ms": 1.0,
        "load_cold_ms": 2.0,
        "memory": None,
        "switch_ms": None,
        "resolutions": {"64": row},
    }
    apis = {"interpreter": {"error": "no " * 99}, "compiled_model_disk_cache": found}
    file = {"title": "a", "paths": ["a"], "layout": "signatures", "bytes": 1}
    machine = {"processor": "p", "cpus": 1, "litert": "2", "threads": 1}
    report = {"machine": machine, "runs": 1, "files": [file | {"apis": apis}]}
    lines = list(benchmark_tflite.lines(report))
    assert "This system has no /proc, where the memory" in lines[3]
    assert any("cannot: no no" in line and len(line) < 100 for line in lines)
    assert lines[-1].split() == ["64", "1.00", "1.00", "-"]


def test_files_of_one_name_are_told_apart():
    assert benchmark_tflite.titles(["x/a", "y/b"]) == ["a", "b"]
    assert benchmark_tflite.titles(["x/a", "y/a"]) == ["x/a", "y/a"]


def test_mistakes_are_one_sentence(run, tmp_path):
    def refuses(sentence, *flags):
        commands.refuses(sentence, TOOL, *flags)

    whole = run / "dynamic.tflite"
    model = f"--model={whole}"
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(whole.read_bytes()[:9000])
    empty = tmp_path / "empty.tflite"
    empty.write_bytes(b"")
    refuses("--model is needed")
    refuses("--model must name .tflite files", "--model=")
    refuses("must be there", f"--model={tmp_path / 'none.tflite'}")
    refuses("must be there", f"--model={tmp_path}")
    refuses("must be a .tflite file", f"--model={empty}")
    refuses("must be a .tflite file", f"--model={run / 'results.json'}")
    refuses("LiteRT must be able to load the file", f"{model},{cut}")
    refuses("`apis` must be some of", model, "--api=gpu")
    refuses("must be integers", model, "--resolutions=a")
    refuses("a positive integer", model, "--runs=0")
    refuses("--plot needs the accuracies of a run", model, "--plot=a.png")
    refuses("a .png or .svg file", model, f"--workdir={run}", "--plot=a.pdf")
    refuses("must hold a finished run", model, f"--workdir={tmp_path / 'none'}")
    refuses("must be a file", model, f"--json={tmp_path}")

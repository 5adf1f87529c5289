"""The table of runs: means, half ranges, and individual networks in one row."""

import json
import os
import pathlib
import subprocess
import sys

from tools import compare_runs


def result(top1, alpha=(1.0,)):
    rows = {key: {"top1": v, "mean_class": v / 2} for key, v in top1.items()}
    ensemble = {"top1": 0.9, "mean_class": 0.5}
    return {"resolutions": rows, "ensemble": ensemble, "alpha": list(alpha)}


RUNS = {
    "single-112-seed0": result({"112": 0.60}),
    "single-112-seed1": result({"112": 0.70}),
    "single-64-seed0": result({"64": 0.50}),
    "rsnet-seed0": result({"112": 0.6, "64": 0.4}, (0.8, 0.2)),
    "rsnet-seed1": result({"112": 0.7, "64": 0.6}, (0.6, 0.4)),
}


def test_seeds_and_individual_networks_join_in_one_row():
    rows = compare_runs.collect(RUNS)
    assert set(rows) == {"single", "rsnet"}
    assert rows["single"]["112"]["top1"] == [0.60, 0.70]
    assert rows["single"]["64"]["top1"] == [0.50]
    assert "ensemble" not in rows["single"]
    assert rows["rsnet"]["alpha"] == [[0.8, 0.2], [0.6, 0.4]]


def test_cells_hold_mean_and_half_range_in_percent():
    text = compare_runs.table(compare_runs.collect(RUNS))
    header, _, rsnet, single = text.splitlines()
    assert header == "| run | 112 | 64 | ensemble | weights in the ensemble |"
    assert "65.0 ± 5.0 / 32.5 ± 2.5" in single and "50.0 / 25.0" in single
    assert "50.0 ± 10.0 / 25.0 ± 5.0" in rsnet and "0.70 0.30" in rsnet


def test_command_writes_the_numbers_and_refuses_an_empty_directory(tmp_path):
    command = [sys.executable, "-m", "tools.compare_runs", f"--runs={tmp_path}"]
    root = pathlib.Path(__file__).parents[2]

    def call(*more):
        return subprocess.run(
            [*command, *more], capture_output=True, text=True, cwd=root
        )

    empty = call()
    assert empty.returncode == 2
    assert "--runs must hold folders with results.json. Received: " in empty.stderr
    for name, values in RUNS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(values))
    found = call(f"--json={tmp_path}/table.json")
    assert found.returncode == 0, found.stderr
    assert json.loads((tmp_path / "table.json").read_text())["rsnet"]["64"]


def test_a_reader_that_leaves_early_is_no_mistake(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "results.json").write_text(json.dumps(RUNS["rsnet-seed0"]))
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-m", "tools.compare_runs", f"--runs={tmp_path}"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, "")

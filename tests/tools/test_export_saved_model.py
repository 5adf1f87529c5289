"""Exporting a finished run as a user does."""

import json

import pytest

from tests import commands
from tools import export_saved_model


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    path.mkdir()
    tiny().save(path / "model.keras")
    return path


def test_a_run_is_exported_and_its_report_is_written(run, tmp_path):
    output, numbers = tmp_path / "saved", tmp_path / "report.json"
    printed = commands.succeeds(
        "tools.export_saved_model",
        f"--workdir={run}",
        f"--output={output}",
        "--input_dtype=uint8",
        f"--json={numbers}",
        run=commands.run_python_m,
    )
    report = json.loads(numbers.read_text())
    assert "\n".join(export_saved_model.lines(report, output)) == printed.strip()
    assert f"{sum(p.stat().st_size for p in output.rglob('*.*')):,} bytes" in printed
    lines = printed.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [
        ["r64", "64x64x3"],
        ["r48", "48x48x3"],
        ["r32", "32x32x3"],
        ["serving_default", "?x?x3"],
    ]


def test_mistakes_are_one_sentence(run, tmp_path):
    def refuses(sentence, workdir, output, *more):
        flags = (f"--workdir={workdir}", f"--output={output}", *more)
        commands.refuses(sentence, "tools.export_saved_model", *flags)

    refuses("must hold a finished run", tmp_path / "none", tmp_path / "saved")
    refuses("directory that exists", run, tmp_path / "no" / "saved")
    refuses("The output exists", run, run)
    refuses("a SavedModel and nothing else", run, run, "--overwrite")
    refuses(
        "must not be the output",
        run,
        tmp_path / "saved",
        f"--json={tmp_path / 'saved'}",
    )
    refuses("must be a file", run, tmp_path / "saved", f"--json={tmp_path}")
    refuses("should be one of", run, tmp_path / "saved", "--input_dtype=int8")
    commands.refuses(
        "--output is needed", "tools.export_saved_model", f"--workdir={run}"
    )
    assert list(tmp_path.iterdir()) == []

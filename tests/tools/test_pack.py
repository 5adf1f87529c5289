"""Packing a finished run as a user does."""

import json

import pytest

from rs_keras.checkpoints import packed
from tests import commands
from tools import pack

REPORT = {
    "bytes": {"total": 1000, "header": 100, "codes": 500, "bases": 96, "rest": 304},
    "float32_bytes": 13000,
    "ratio": 13.0,
    "quantized_weights": 2000,
    "bits_per_weight": 2.0,
    "rounding": {"largest": 0.00391, "weight": "fc/kernel"},
    "logits": {"64": {"largest_difference": 0.0213, "largest": 5, "same_class": 0.75}},
}


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Workdirs of finished runs: one with 2-bit weights, one with float weights."""
    root = tmp_path_factory.mktemp("runs")
    for name, bits in (("low", (2, 2)), ("float", (32, 32))):
        (root / name).mkdir()
        tiny(bits=bits).save(root / name / "model.keras")
    return root


def test_the_report_says_sizes_and_rounding_errors():
    text = "\n".join(pack.lines(REPORT, "m.lq", "int8"))
    assert "m.lq: 1,000 bytes, 1/13.00 of the 13,000 bytes of float32 weights" in text
    assert (
        "codes 500 (2.000 bits for each of 2,000 weights), bases 96, rest 304" in text
    )
    assert "rounding of the rest to int8: at most 0.39% of" in text
    assert "logits at 64: differ by at most 0.0213, the largest being 5" in text
    assert "same class for 75% of the generated images" in text
    exact = REPORT | {"rounding": {"largest": 0.0, "weight": None}}
    exact |= {"quantized_weights": 0, "bits_per_weight": None}
    text = "\n".join(pack.lines(exact, "m.lq", "float32"))
    assert "codes 500, bases" in text and "rest to float32: none" in text


def test_a_run_is_packed_and_its_sizes_are_written(runs, tmp_path):
    output, numbers = tmp_path / "m.lq", tmp_path / "m.json"
    printed = commands.succeeds(
        "tools.pack",
        f"--workdir={runs / 'low'}",
        f"--output={output}",
        "--rest=int8",
        f"--json={numbers}",
        run=commands.run_python_m,
    )
    report = json.loads(numbers.read_text())
    assert f"{output.stat().st_size:,} bytes" in printed
    assert report["bytes"]["total"] == output.stat().st_size
    assert "\n".join(pack.lines(report, output, "int8")) == printed.strip()
    assert packed.load_packed(output).name == "tiny"
    again = ("tools.pack", f"--workdir={runs / 'low'}", f"--output={output}")
    commands.refuses("--output exists; choose another", *again)
    commands.succeeds(*again, "--overwrite")
    assert output.stat().st_size > report["bytes"]["total"]


def test_mistakes_are_one_sentence(runs, tmp_path):
    def refuses(sentence, run, output, *more):
        flags = (f"--workdir={runs / run}", f"--output={output}", *more)
        commands.refuses(sentence, "tools.pack", *flags)

    refuses("network with quantized weights", "float", tmp_path / "m.lq")
    refuses("a file in a directory that exists", "low", tmp_path)
    refuses("must hold a finished run", "none", tmp_path / "m.lq")
    refuses("should be one of", "low", tmp_path / "m.lq", "--rest=int4")
    refuses(
        "rest=float32 alone",
        "low",
        tmp_path / "m.lq",
        "--training_state",
        "--rest=int8",
    )
    commands.refuses("--output is needed", "tools.pack", f"--workdir={runs / 'low'}")
    assert list(tmp_path.iterdir()) == []

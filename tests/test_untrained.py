"""`evaluate` at resolutions that a run was not trained at."""

import json

import pytest

from tests import commands

SIDES = "--resolutions=56,48,40,32"


def evaluated(finished, tmp_path, *arguments):
    out = tmp_path / "found.json"
    arguments = (f"--workdir={finished}", SIDES, f"--json={out}", *arguments)
    output = commands.succeeds("rs_keras.evaluate", *arguments)
    return output, json.loads(out.read_text())


def test_trained_resolutions_keep_their_rows_whatever_bn_says(finished, tmp_path):
    expected = json.loads((finished / "results.json").read_text())
    for bn in ("calibrate", "nearest"):
        _, found = evaluated(finished, tmp_path, f"--bn={bn}")
        for side in ("48", "32"):
            assert found["resolutions"][side] == expected["resolutions"][side]
        assert found["ensemble"] == expected["ensemble"]
        assert found["alpha"] == expected["alpha"]
        assert set(found["untrained"]) == {"56", "40"}
        assert {row["bn"] for row in found["untrained"].values()} == {bn}
        if bn == "calibrate":
            assert found["untrained"]["56"]["images"] == 48  # all there are
            # The same images, crop for crop, each time.
            assert evaluated(finished, tmp_path, f"--bn={bn}")[1] == found


def test_calibration_says_what_it_took_and_draws_the_curve(finished, tmp_path):
    plot = tmp_path / "curve.svg"
    output, found = evaluated(
        finished,
        tmp_path,
        "--bn=calibrate_exact",
        "--calibration_images=20",
        "--batch_size=8",
        f"--plot={plot}",
    )
    row = found["untrained"]["40"]
    assert (row["images"], row["batch_size"]) == (20, 8)
    assert row["passes"] > 2
    assert f"20 training images in batches of 8, passes: {row['passes']}" in output
    assert "<svg" in plot.read_text()


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("at most the 48 training images", ("--bn=calibrate", "49")),
        ("goes with --bn=calibrate", ("--bn=nearest", "20")),
        ("--calibration_images", ("--bn=calibrate", "1")),
        ("value should be one of", ("--bn=guess",)),
        ("--plot must be a .png or .svg file", ("--plot=curve.pdf",)),
    ],
)
def test_mistakes_are_one_sentence(finished, words, arguments):
    first, *images = arguments
    more = [f"--calibration_images={n}" for n in images]
    commands.refuses(
        words, "rs_keras.evaluate", f"--workdir={finished}", SIDES, first, *more
    )

"""What batch normalization learnt, and alpha over training, of a real run."""

import json

import numpy as np
import pytest

from rs_keras.checkpoints import keras_file
from rs_keras.evaluation import analysis
from tests import commands


def test_parameters_are_the_means_over_the_channels(finished, tmp_path):
    out, plot = tmp_path / "bn.json", tmp_path / "bn.svg"
    printed = commands.succeeds(
        "tools.bn_parameters",
        f"--workdir={finished}",
        f"--json={out}",
        f"--plot={plot}",
    )
    found = json.loads(out.read_text())
    model = keras_file.load(finished)
    assert len(found["layers"]) == 20 and found["layers"][0] == "bn1"
    norm = model.blocks[0].norm
    for row, key in enumerate(("48", "32")):
        for name, weight in (
            ("gamma", norm.gamma),
            ("beta", norm.beta),
            ("mean", norm.moving_mean),
            ("variance", norm.moving_variance),
        ):
            expected = np.mean(np.array(weight)[row])
            np.testing.assert_allclose(found["rows"][key][name][0], expected, rtol=1e-6)
    assert f"{found['rows']['32']['variance'][0]:.4f}" in printed
    assert "<svg" in plot.read_text()


def test_shared_normalizations_are_refused(tiny):
    with pytest.raises(ValueError, match="shared_bn"):
        analysis.batch_norm(tiny(shared_bn=True))


def test_alpha_is_that_of_every_epoch(finished, tmp_path):
    out, plot = tmp_path / "alpha.json", tmp_path / "alpha.png"
    flags = (f"--json={out}", f"--plot={plot}")
    commands.succeeds("tools.alpha", f"--workdir={finished}", *flags)
    found = json.loads(out.read_text())["alpha"]
    assert {key: list(row) for key, row in found.items()} == dict.fromkeys(
        ("48", "32"), ["1", "2", "3", "4", "5"]
    )
    last = [row["5"] for row in found.values()]
    expected = json.loads((finished / "results.json").read_text())["alpha"]
    np.testing.assert_allclose(last, expected, rtol=1e-6)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_one_sentence(finished, tmp_path):
    for tool in ("tools.bn_parameters", "tools.alpha"):
        commands.refuses("--workdir is needed", tool)
        commands.refuses("must hold a", tool, f"--workdir={tmp_path}")
        workdir = f"--workdir={finished}"
        commands.refuses(".png or .svg", tool, workdir, "--plot=a.gif")
    (tmp_path / "flags.cfg").write_text("--model=resnet18\n")
    commands.refuses("finished an epoch", "tools.alpha", f"--workdir={tmp_path}")

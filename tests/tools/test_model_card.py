"""The model card that a training writes, and what becomes of it."""

import json
import re
import shutil

import pytest

from rs_keras import model_card
from rs_keras import workdir as workdir_lib
from tests import commands

TOOL = "tools.model_card"


@pytest.fixture
def copied(finished, tmp_path):
    """A workdir of its own, with the card that the training wrote."""
    shutil.copytree(finished, tmp_path / "copied")
    return workdir_lib.Workdir(tmp_path / "copied")


def test_a_training_ends_with_a_card(finished, photos):
    text = (finished / "model_card.md").read_text("utf-8")
    results = json.loads((finished / "results.json").read_text())
    data = json.loads((finished / "data.json").read_text())
    assert data == {"images": {"train": 48, "val": 24}}
    assert "48 training and 24 validation images" in text
    for side, row in results["resolutions"].items():
        top1 = 100 * row["top1"]
        error = 100 * (row["top1"] * (1 - row["top1"]) / 24) ** 0.5
        line = f"| {side} | {top1:.1f} ± {error:.1f} | – | "
        assert line in text and f"| {row['macs'] / 1e6:.1f} |" in text
    assert "- Classes: blue, green, red." in text
    assert f"{results['parameters']:,} trainable parameters" in text
    size = (finished / "model.keras").stat().st_size
    assert f"{size:,} bytes" in text
    assert "Epochs: 5, steps: 30, time: 0:" in text and "--learning_rate=0.02\n" in text
    titles = re.findall(r"^## (.*)$", text, re.M)
    assert titles == "Use Data Recipe Results Sizes Licence Limits".split()
    # Where the images lie is no business of readers.
    assert (
        f"--dataset=folder:{photos.name}\n" in text and str(photos.parent) not in text
    )


def test_the_use_that_it_shows_works(finished, fresh_python):
    text = (finished / "model_card.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    program = program.replace('"model.keras"', repr(str(finished / "model.keras")))
    images = "import numpy as np\nimages = np.zeros((2, 60, 72, 3), 'uint8')\n"
    output = fresh_python(f"{images}{program}\nprint(names)")
    assert re.search(r"^\['(\w+)', '\1'\]$", output, re.M), output


def test_a_licence_stays_and_is_read_as_yaml(copied):
    path = copied.path / "model_card.md"
    before = path.read_text("utf-8")
    assert "license:" not in before and "Nobody has said yet" in before
    model_card.write(copied, license="cc-by-4.0")
    written = path.read_text("utf-8")
    assert written.startswith("---\nlibrary_name: keras\n")
    assert '\nlicense: "cc-by-4.0"\n' in written and "Nobody" not in written
    assert model_card.write_at_end(copied) == f"Written: {path}"
    assert path.read_text("utf-8") == written
    other = copied.path / "other.md"
    model_card.write(copied, other)
    assert other.read_text("utf-8") == written
    path.write_text(written.replace('"cc-by-4.0"', "mit"), "utf-8")  # by hand
    model_card.write(copied, overwrite=True)
    assert '\nlicense: "mit"\n' in path.read_text("utf-8")
    model_card.write(copied, license='my "own": terms')
    written = path.read_text("utf-8")
    assert '\nlicense: other\nlicense_name: "my \\"own\\": terms"\n' in written
    model_card.write(copied)
    assert path.read_text("utf-8") == written


def test_what_was_changed_by_hand_is_kept(copied, photos):
    path = copied.path / "model_card.md"
    edited = path.read_text("utf-8").replace("Robustness", "Its robustness")
    path.write_text(edited, "utf-8")
    output = commands.succeeds(
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{photos}",
        f"--workdir={copied.path}",
        "--epochs=5",
    )
    assert f"{path} was changed by hand and stays as it is" in output
    assert path.read_text("utf-8") == edited
    commands.refuses("changed, by hand", TOOL, f"--workdir={copied.path}")
    assert path.read_text("utf-8") == edited
    other = copied.path / "other.md"
    commands.succeeds(TOOL, f"--workdir={copied.path}", f"--output={other}")
    commands.succeeds(TOOL, f"--workdir={copied.path}", "--overwrite")
    assert path.read_text("utf-8") == other.read_text("utf-8") != edited


def test_exports_have_their_size(copied, tmp_path):
    report = {"bytes": 1234567, "bytes_by_kind": {}, "verification": "off"}
    report |= {"layout": "signatures", "precision": "int8"}
    (copied.path / "a.tflite.report.json").write_text(json.dumps(report))
    (copied.path / "foreign.json").write_text('{"bytes": "12 kB", "signatures": {}}')
    packed = {"bytes": {"total": 890, "header": 1}, "quantized_weights": 0}
    packed["logits"] = {"48": {"largest_difference": 0.5, "same_class": 1.0}}
    (tmp_path / "small.json").write_text(json.dumps(packed))
    model_card.write(copied, exports=[str(tmp_path / "small.json")])
    text = (copied.path / "model_card.md").read_text("utf-8")
    assert "- `a.tflite` (.tflite, int8): 1,234,567 bytes." in text
    assert "- `small` (packed): 890 bytes." in text and "foreign" not in text


def test_names_are_shown_as_they_are(copied):
    results = json.loads(copied.results.read_text())
    results["classes"] = ["a|b", "<i>c</i>", "d\n# e", "f\udce9", "g_h_i"]
    copied.results.write_text(json.dumps(results))
    model_card.write(copied)
    text = (copied.path / "model_card.md").read_text("utf-8")
    assert r"- Classes: a\|b, \<i\>c\</i\>, d \# e, f?, g\_h\_i." in text


def test_runs_of_an_earlier_version_have_a_card(copied):
    copied.data.unlink()
    copied.timing.unlink()
    copied.metrics.unlink()
    model_card.write(copied)
    text = (copied.path / "model_card.md").read_text("utf-8")
    assert "numbers of images not recorded" in text and " ± " not in text
    assert "Epochs: not recorded" in text


@pytest.mark.parametrize(
    "dataset, shown",
    [
        ("tfds:imagenet_resized/8x8", "tfds:imagenet_resized/8x8"),
        ("folder:/home/me/my photos", "folder:my photos"),
        ("folder:/home/me/a`b", "folder:a'b"),
        ("shapes", "shapes"),
    ],
)
def test_a_dataset_is_named_so_that_it_is_found_again(copied, dataset, shown):
    flags = copied.flags.read_text().splitlines()
    flags = [x for x in flags if not x.startswith("--dataset")]
    flags += [f"--dataset={dataset}", "--init_from=/home/me/runs/first"]
    copied.flags.write_text("\n".join(flags) + "\n")
    model_card.write(copied)
    text = (copied.path / "model_card.md").read_text("utf-8")
    assert f"\n--dataset={shown}\n" in text and f"- `{shown}`: " in text
    assert "It starts from the weights in `first`." in text and "/home" not in text


def test_a_card_that_cannot_be_written_ends_no_training(copied):
    copied.data.write_text("[]")
    sentence = model_card.write_at_end(copied)
    assert sentence.startswith("warning: ") and "data.json must be there" in sentence
    copied.data.unlink()
    copied.model.write_bytes(b"no zip file")
    assert "whole .keras file" in model_card.write_at_end(copied)


def test_mistakes_are_one_sentence(finished, tmp_path):
    commands.refuses("--workdir is needed", TOOL)
    commands.refuses("finished run", TOOL, f"--workdir={tmp_path}")
    workdir = f"--workdir={finished}"
    commands.refuses("a .md file", TOOL, workdir, "--output=card.txt")
    commands.refuses("--exports must be", TOOL, workdir, "--exports=no.tflite")
    commands.refuses("by hand", TOOL, workdir, "--output=README.md")
    commands.refuses("an SPDX identifier, or words", TOOL, workdir, "--license=")

"""The report of a real run: everything that was found, in one page."""

import json
import os
import re
import shutil

import pytest

from tests import browser
from tests import commands
from tests.report import pages

TOOL = "tools.report"
SECTIONS = (
    "results resolutions training hit_miss classes examples features batch_norm "
    "exports flags"
).split()
EXPORT = {
    "layout": "signatures",
    "precision": "int8",
    "bytes": 208544,
    "bytes_by_kind": {"kernels": 176408},
    "verification": {
        "signatures": {
            "r48": {
                "error": 0.0147,
                "agreement_of_all": 0.8947,
                "agreement": 1.0,
                "near_ties": 50,
                "delegated": 35,
                "operators": 37,
            }
        }
    },
}
# What an image, a table or a line of text may be: cut off, or pushing the page wide.
CUT_OFF = """(() => {
  // Not innerWidth: a phone zooms out where a page is too wide.
  const width = document.documentElement.clientWidth;
  const wide = document.documentElement.scrollWidth > width;
  const boxes = Array.from(document.querySelectorAll('section *'));
  const cut = boxes.filter(box => !box.closest('.scroll')
    && (box.getBoundingClientRect().right > width + 1
        || box.getBoundingClientRect().left < -1));
  // The first table is the results; all of it is on the screen.
  const first = document.querySelector('.scroll');
  const whole = first.scrollWidth <= first.clientWidth;
  const scrolls = Array.from(document.querySelectorAll('.scroll')).every(
    box => getComputedStyle(box).overflowX === 'auto');
  return {wide, whole, cut: cut.map(box => box.tagName), scrolls};
})()"""
LOADED = """Array.from(document.images).map(
  image => image.complete && image.naturalWidth > 0
    && image.getBoundingClientRect().width > 20)"""


@pytest.fixture(scope="module")
def individual(photos, tmp_path_factory):
    """Individual networks of 48 and of 32 pixels."""
    folder = tmp_path_factory.mktemp("individual")
    for side in (48, 32):
        commands.succeeds(
            "rs_keras.train",
            *commands.TINY,
            "--method=single",
            f"--resolutions={side}",
            f"--dataset=folder:{photos}",
            f"--workdir={folder / str(side)}",
            "--epochs=1",
        )
    return [folder / "48", folder / "32"]


@pytest.fixture(scope="module")
def compared(finished, individual, tmp_path_factory):
    """(page, numbers) of a run beside individual networks, with an export."""
    folder = tmp_path_factory.mktemp("report")
    report = folder / "a.tflite.report.json"
    report.write_text(json.dumps(EXPORT))
    os.utime(report, (0, 0))
    commands.succeeds(
        TOOL,
        f"--workdir={finished}",
        f"--compare={individual[0]},{individual[1]}",
        f"--exports={folder / 'a.tflite'}",
        f"--output={folder / 'report.html'}",
        f"--json={folder / 'numbers.json'}",
        "--batch_size=7",
    )
    text = (folder / "report.html").read_text("utf-8")
    return text, json.loads((folder / "numbers.json").read_text())


def test_the_page_shows_what_the_files_say(compared, finished):
    page = pages.Page(compared[0])
    results = json.loads((finished / "results.json").read_text())
    assert page.ids == [*SECTIONS[:1], "comparison", *SECTIONS[1:]]
    assert page.links == page.ids
    most = results["resolutions"]["48"]["macs"]
    for side, row in results["resolutions"].items():
        expected = [f"{100 * row['top1']:.1f}", "–", f"{100 * row['mean_class']:.1f}"]
        expected += [f"{row['macs'] / 1e6:.1f}", f"{100 * row['macs'] / most:.0f}"]
        assert [side, *expected] in page.rows
    tops = [f"{100 * row['top1']:.1f}" for row in results["resolutions"].values()]
    assert [finished.name, *tops] in page.rows
    (flags,) = page.text["pre"]
    assert flags.splitlines() == (finished / "flags.cfg").read_text().splitlines()
    size = (finished / "model.keras").stat().st_size
    assert ["model.keras", "", f"{size:,}"] in page.rows
    what = ".tflite signatures int8 (written before model.keras)"
    assert ["a.tflite", what, "208,544"] in page.rows
    assert ["r48", "1.5e-02", "89.5", "50", "100.0", "35/37"] in page.rows
    drawings = [alt for alt, kind, _ in page.images if "svg" in kind]
    assert len(drawings) == 10 and len(set(drawings)) == 10
    assert "Left out" not in page.text["h3"]


def test_the_numbers_agree_with_those_of_the_runs(compared, finished, individual):
    found = compared[1]
    results = json.loads((finished / "results.json").read_text())
    assert found["results"] == results
    tops = {p["resolution"]: p["top1"] for p in found["dense"]}
    assert list(tops) == [56, 48, 40, 32]  # 24 is less than the strides allow
    for side, row in results["resolutions"].items():
        assert abs(tops[int(side)] - row["top1"]) < 1e-9
    assert [p["trained"] for p in found["dense"]] == [False, True, False, True]
    alone = [
        json.loads((one / "results.json").read_text())["resolutions"]
        for one in individual
    ]
    alone = {side: row["top1"] for rows in alone for side, row in rows.items()}
    for point in found["differences"][finished.name]:
        side = str(point["resolution"])
        expected = 100 * (results["resolutions"][side]["top1"] - alone[side])
        assert abs(point["difference"] - expected) < 1e-9
    assert list(found["hit_miss"]) == [finished.name, "2 individual networks"]
    gap = found["hit_miss"]["2 individual networks"]
    assert abs(gap["32"]["48"] - gap["48"]["32"] - alone["48"] + alone["32"]) < 1e-9
    assert len(found["metrics"]) == found["training"]["epochs"] == 5


def test_a_report_without_images_says_what_is_left_out(individual):
    commands.succeeds(TOOL, f"--workdir={individual[0]}", "--images=off")
    page = pages.Page((individual[0] / "report.html").read_text("utf-8"))
    assert page.ids == ["results", "training", "batch_norm", "exports", "flags"]
    assert page.text["h3"] == ["Left out"]
    assert page.text["li"] == ["What needs the validation images (--images=off)"]


def test_an_individual_network_is_shown_where_it_was_not_trained(individual, tmp_path):
    out = tmp_path / "numbers.json"
    both = f"--workdir={individual[0]}", f"--compare={individual[1]}"
    commands.succeeds(TOOL, *both, f"--json={out}")
    page = pages.Page((individual[0] / "report.html").read_text("utf-8"))
    expected = "results comparison resolutions training features batch_norm exports"
    assert page.ids == [*expected.split(), "flags"]
    assert page.text["li"] == ["Changes of classes: there is one resolution"]
    assert not any("ensemble" in cell for row in page.rows for cell in row)
    found = json.loads(out.read_text())
    assert [p["resolution"] for p in found["dense"]] == [60, 48, 36]
    assert found["differences"] == {}  # nothing was trained together


@pytest.mark.slow
def test_branches_that_are_views_are_left_out_of_curves(photos, tmp_path):
    workdir = f"--workdir={tmp_path / 'views'}"
    views = ("--resolutions=32", "--views=2", "--crops=per_resolution", "--epochs=1")
    dataset = f"--dataset=folder:{photos}"
    commands.succeeds("rs_keras.train", *commands.TINY, dataset, *views, workdir)
    commands.succeeds(TOOL, workdir)
    page = pages.Page((tmp_path / "views" / "report.html").read_text("utf-8"))
    expected = "results training hit_miss batch_norm exports flags".split()
    assert page.ids == expected and len(page.text["li"]) == 3
    card = (tmp_path / "views" / "model_card.md").read_text("utf-8")
    assert "| 32_view1 |" in card


def test_other_images_than_those_of_the_run_are_refused(individual, photos, tmp_path):
    """Else the page would show numbers that do not belong together."""
    folder, moved = tmp_path / "photos", tmp_path / "moved"
    shutil.copytree(photos, folder)
    shutil.copytree(individual[0], moved)
    flags = (moved / "flags.cfg").read_text()
    (moved / "flags.cfg").write_text(flags.replace(str(photos), str(folder)))
    (folder / "val" / "red" / "0.jpg").unlink()
    commands.refuses("those of the run, 24", TOOL, f"--workdir={moved}")
    (moved / "data.json").unlink()
    (folder / "train" / "a").mkdir()
    shutil.copy(folder / "val" / "red" / "1.jpg", folder / "train" / "a" / "1.jpg")
    commands.refuses("the classes of the network", TOOL, f"--workdir={moved}")


def test_mistakes_are_one_sentence(finished, individual, tmp_path):
    workdir = f"--workdir={finished}"
    commands.refuses("--workdir is needed", TOOL)
    commands.refuses("finished run", TOOL, f"--workdir={tmp_path}")
    page = f"{tmp_path}/page.html"
    same = (f"--output={page}", f"--json={page}")
    commands.refuses("--json must not be the output", TOOL, workdir, *same)
    sentence = "--compare must hold a finished run"
    commands.refuses(sentence, TOOL, workdir, f"--compare={tmp_path}")
    commands.refuses("there once", TOOL, workdir, f"--compare={finished}")
    commands.refuses("a .html file", TOOL, workdir, "--output=report.txt")
    commands.refuses("a .html file", TOOL, workdir, f"--output={tmp_path}/no/a.html")
    (tmp_path / "a.html").mkdir()
    commands.refuses("a .html file", TOOL, workdir, f"--output={tmp_path}/a.html")
    commands.refuses("--exports must be", TOOL, workdir, "--exports=setup.cfg")
    moved = tmp_path / "moved"
    shutil.copytree(individual[0], moved)
    flags = (moved / "flags.cfg").read_text()
    lines = [x for x in flags.splitlines() if not x.startswith("--dataset")]
    lines.append(f"--dataset=folder:{tmp_path / 'gone'}")
    (moved / "flags.cfg").write_text("\n".join(lines) + "\n")
    commands.refuses("--images=off leaves out", TOOL, f"--workdir={moved}")
    results = json.loads((moved / "results.json").read_text())
    results["classes"][0] = "another"
    (moved / "results.json").write_text(json.dumps(results))
    commands.refuses("the same classes", TOOL, workdir, f"--compare={moved}")
    del results["classes"]
    (moved / "results.json").write_text(json.dumps(results))
    commands.refuses("results.json must be there", TOOL, f"--workdir={moved}")
    (moved / "results.json").unlink()
    commands.refuses("results.json must be there", TOOL, f"--workdir={moved}")


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """The report on a run that is right at one resolution alone now and then."""
    workdir = (
        tmp_path_factory.mktemp("unsure") / "a_run_with_a_rather_long_name_of_its_own"
    )
    flags = ("--dataset=shapes", "--batch_size=64", "--epochs=2")
    commands.succeeds("rs_keras.train", *commands.TINY, *flags, f"--workdir={workdir}")
    commands.succeeds(
        "tools.export_tflite",
        f"--workdir={workdir}",
        f"--output={workdir / 'model.tflite'}",
        "--min_agreement=0",
    )
    commands.succeeds(TOOL, f"--workdir={workdir}")
    return workdir / "report.html"


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width, height", [(360, 740), (390, 844), (1280, 900)])
def test_a_browser_shows_all_of_it(unsure, tmp_path, width, height, dark):
    images = pages.Page(unsure.read_text("utf-8")).images
    assert sum("png" in kind for _, kind, _ in images) > 4
    with browser.started(tmp_path / "profile") as tab:
        tab.open(unsure.as_uri(), width, height, dark=dark)
        assert tab.run(LOADED) == [True] * len(images)
        seen = {"wide": False, "whole": True, "cut": [], "scrolls": True}
        assert tab.run(CUT_OFF) == seen
        assert tab.run("innerWidth") == width
        paper = tab.run("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(25, 25, 25)" if dark else "rgb(255, 255, 255)")
        asked = [x for x in tab.requests if not x.startswith("data:")]
        assert asked == [unsure.as_uri()]
        assert len(tab.picture()) > 50_000


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium on PATH")
def test_the_check_sees_what_is_cut_off(unsure, tmp_path):
    text = unsure.read_text("utf-8").replace('class="scroll"', "", 1)
    text = text.replace("</h1>", "</h1><p style='width: 90rem'>wide</p>", 1)
    text = re.sub(
        r"(<section.*?src=)\"data:[^\"]*", r'\1"data:image/png;base64,AA', text
    )
    path = tmp_path / "report.html"
    path.write_text(text, "utf-8")
    with browser.started(tmp_path / "profile") as tab:
        tab.open(path.as_uri(), 390, 844)
        assert tab.run(CUT_OFF)["wide"]
        assert False in tab.run(LOADED)

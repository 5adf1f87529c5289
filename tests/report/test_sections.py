"""Parts of a page that most runs do not have."""

import pytest

from rs_keras import pictures
from rs_keras.report import analyses
from rs_keras.report import exports
from rs_keras.report import html
from rs_keras.report import results
from tests.report import pages

NAMES = ("$^$", "猫", "f\udce9", "_x", "a&b", "\x07bell")


def shown(section):
    return pages.Page(html.page("title", section))


def export(kind, report):
    size = {"name": "a", "kind": kind, "bytes": 1234, "older": False}
    return {**size, "report": {"bytes": 1234, **report}}


def test_each_kind_of_export_has_its_table():
    checked = {"images": 9, "signatures": {"r64": ROW, "r48": {**ROW, **FEW}}}
    found = [
        export(".tflite", {"layout": "dynamic", "verification": checked}),
        export(".tflite", {"layout": "dynamic", "verification": "off"}),
        export(
            "SavedModel",
            {"signatures": {"r64": {"image": [64, None, 3], "error": 0.5}}},
        ),
        export(
            "packed",
            {"logits": {"64": {"largest_difference": 0.25, "same_class": 0.75}}},
        ),
    ]
    page = shown(exports.exports({"bytes": 5, "exports": found}))
    assert page.rows[1:5] == [
        ["model.keras", "", "5"],
        ["a", ".tflite dynamic", "1,234"],
        ["a", ".tflite dynamic", "1,234"],
        ["a", "SavedModel", "1,234"],
    ]
    assert ["r64", "1.0e-02", "95.0", "7", "99.0", "3/4"] in page.rows
    assert ["r48", "1.0e-02", "95.0", "7", "(99.0: 2 classes)", "3/4"] in page.rows
    assert ["r64", "64×?×3", "5.0e-01"] in page.rows
    assert ["64", "0.25", "75"] in page.rows
    assert "Not compared with the network." in page.text["p"]
    assert any("on 9 images" in text for text in page.text["p"])


ROW = {
    "error": 0.01,
    "agreement_of_all": 0.95,
    "agreement": 0.99,
    "near_ties": 7,
    "delegated": 3,
    "operators": 4,
}
FEW = {"inconclusive": True, "classes": 2}


def test_of_many_classes_those_that_change_most_are_drawn():
    rows = {f"class{i}": {"largest": 0.5, "smallest": i / 99} for i in range(99)}
    found = {"ends": (64, 48), "only_one": {"only at 64": 1}, "classes": rows}
    page = shown(analyses.classes(found))
    assert "Of 99 classes the 40 are drawn that change most" in page.text["p"][0]
    ((_, _, drawing),) = page.images
    drawn = drawing.decode()
    assert all(f">class{i}<" in drawn for i in (0, 19, 79, 98))
    assert not any(f">class{i}<" in drawn for i in (20, 78))


def test_any_name_is_drawn():
    rows = {name: {"largest": 0.5, "smallest": 0.25} for name in NAMES}
    found = {"ends": (64, 48), "only_one": {}, "classes": rows}
    ((_, _, drawing),) = shown(analyses.classes(found)).images
    drawn = drawing.decode()
    for text in (">$^$<", ">猫<", r">f\udce9<", "_x<", ">a&amp;b<", r">\x07bell<"):
        assert text in drawn, text


def test_a_curve_whose_name_begins_with_an_underscore_has_its_legend(tmp_path):
    path = tmp_path / "a.svg"
    pictures.accuracy_against_resolution(path, {"_run": [(64, 0.5, True)]})
    assert "_run<" in path.read_text("utf-8")


@pytest.mark.parametrize(
    "method, resolutions, words",
    [
        ("rsnet", "64,48", "is interpolated"),
        ("shared_bn", "64,48", "the one batch normalization"),
        ("single", "64", "of the trained one"),
    ],
)
def test_what_other_resolutions_have_is_said_of_each_method(method, resolutions, words):
    point = {"resolution": 64, "top1": 0.5, "macs": 1, "trained": True}
    flags = {"method": method, "resolutions": resolutions}
    found = {"title": "a", "flags": flags, "curves": {"a": [point]}, "dense": [point]}
    assert words in shown(results.resolutions(found)).text["p"][0]

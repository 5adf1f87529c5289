"""What the documentation says to type into an app is what an exported file has."""

import pathlib
import re

import pytest
from ai_edge_litert import interpreter as litert

from rs_keras.export import tflite

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def snippets(language):
    text = (DOCS / "tflite.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def files(tiny, batch):
    """Interpreters of the files that the snippets are about."""
    model = tiny((160, 96))
    images = {r: batch(2, r)[0] for r in model.resolutions}
    return {
        layout: litert.Interpreter(
            model_content=tflite.convert(model, layout, precision, **options)[0]
        )
        for layout, precision, options in (
            ("signatures", "int8", {"calibration": images}),
            ("dynamic", "float32", {}),
        )
    }


def test_kotlin_names_what_a_file_has(files):
    (text,) = snippets("kotlin")
    (key,) = re.findall(r'"(\w+)",\n\)', text)
    names = set(re.findall(r'"(\w+)" to', text))
    assert "probabilities" in names
    (size,) = re.findall(r"allocateDirect\(([\d* ]+)\)", text)
    assert size == "160 * 160 * 3"
    run = files["signatures"].get_signature_runner(key)
    assert set(run.get_input_details()) == {"image"}
    assert set(run.get_output_details()) == names - {"image"}
    assert list(run.get_input_details()["image"]["shape"]) == [1, 160, 160, 3]
    assert run.get_input_details()["image"]["dtype"].__name__ == "uint8"
    for output in run.get_output_details().values():
        assert output["dtype"].__name__ == "int8"  # a ByteArray


@pytest.mark.parametrize(
    "layout, number, dtype", [("signatures", 0, "uint8"), ("dynamic", 1, "float32")]
)
def test_cpp_names_what_a_file_has(layout, number, dtype, files):
    text = snippets("cpp")[number]
    (key,) = re.findall(r'GetSignatureRunner\("(\w+)"\)', text)
    run = files[layout].get_signature_runner(key)
    (name,) = set(re.findall(r'(?:input_tensor|ResizeInputTensor)\("(\w+)"', text))
    assert run.get_input_details()[name]["dtype"].__name__ == dtype
    field = {"uint8": "data.uint8", "float32": "data.f"}[dtype]
    assert field in text
    for output in re.findall(r'output_tensor\("(\w+)"\)', text):
        found = run.get_output_details()[output]
        assert found["dtype"].__name__ == "int8" and "data.int8" in text
    for shape in re.findall(r"\{([\d, ]+)\}", text):
        assert [int(n) for n in shape.split(",")] == [1, 160, 160, 3]

"""What a file computes is compared with the network, by numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from rs_keras.export import flatbuffer
from rs_keras.export import output
from rs_keras.export import tflite
from rs_keras.export import verify
from tests.export import files
from tests.export import test_saved_model as saved


@pytest.fixture(scope="module")
def exported(tiny, batch):
    """(network, its file, what to verify)."""
    model = saved.spread(tiny())
    data, report = tflite.convert(model, "signatures")
    images = {r: batch(8, r)[0] for r in model.resolutions}
    return model, data, tflite.signatures_to_verify(report, images)


def test_the_error_is_a_share_of_the_norm_in_the_median_image():
    expected = np.array([[3.0, 4.0], [6.0, 8.0], [0.0, 5.0]])
    logits = expected + [[0.0, 0.5], [3.0, 4.0], [0.03, 0.04]]
    # 0.5 / 5, 5 / 10, and 0.05 / 5
    found = verify.compare(logits, expected, typical=True)
    assert found["error"] == pytest.approx(0.1)
    # Of all: sqrt((0.5² + 5² + 0.05²) / (5² + 10² + 5²)).
    found = verify.compare(logits, expected)
    assert found["error"] == pytest.approx(np.sqrt(25.2525 / 150))
    assert found["largest_error"] == pytest.approx(0.5)
    silent = verify.compare(np.zeros((1, 2)), np.zeros((1, 2)))
    assert silent["error"] == 0 and silent["agreement"] == 1


def test_agreement_leaves_out_near_ties_and_counts_them():
    expected = np.array([[0, 1], [0, 0.1], [0.1, 0], [2, 0]])
    logits = expected + [[0, 0], [0.12, -0.12], [0, 0], [0, 0]]
    # Gaps are off by sqrt(0.24**2 / 4) = 0.12: those below 0.24 are near-ties, of which
    # the error turns one over.
    found = verify.compare(logits, expected)
    assert (found["near_ties"], found["near_ties_agree"]) == (2, 1)
    assert found["agreement"] == 1
    # Among 20 images one has an error above its gap; all: sqrt(1.2**2 / 20) = 0.27.
    expected = np.tile([0.0, 1.0], (20, 1))
    logits = expected.copy()
    logits[3] += [0.6, -0.6]
    found = verify.compare(logits, expected)
    assert (found["near_ties"], found["near_ties_agree"]) == (0, 0)
    assert found["agreement"] == pytest.approx(19 / 20)


def test_an_agreement_over_few_classes_is_inconclusive():
    for classes, inconclusive in ((4, True), (5, False), (6, False)):
        expected = np.eye(6)[[0, 0, *range(classes)]]
        found = verify.compare(expected, expected)
        assert found["classes"] == classes
        assert found["inconclusive"] is inconclusive


def _delegated(image):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype("float32")
    x = tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME"))
    return {"logits": tf.nn.softmax(tf.reduce_mean(x, (1, 2)))}


def _partly(image):
    """A convolution, what XNNPACK does not know, and an operator that it does."""
    return {"logits": tf.nn.top_k(_delegated(image)["logits"], 3).values * 2}


def test_operators_that_are_not_delegated_are_named():
    data = files.convert(
        {"all": (_delegated, (1, 8, 8, 3)), "some": (_partly, (1, 16, 16, 3))}
    )
    whole = verify.delegation(data, "all", 8)
    assert whole == {"operators": 3, "delegated": 3, "fallbacks": {}}
    some = verify.delegation(data, "some", 16)
    assert some["fallbacks"] == {"TOPK_V2": 1}
    assert some["operators"] == some["delegated"] + 1


def test_a_report_has_a_row_for_each_signature(exported):
    model, data, signatures = exported
    found = verify.verify(data, model, signatures, "float32", threads=1)
    assert found["images"] == 8
    assert (found["tolerance"], found["min_agreement"]) == (1e-4, 0.99)
    assert list(found["signatures"]) == ["r64", "r48", "r32"]
    for signature in signatures:
        row = found["signatures"][signature.title]
        images = signature.images
        expected = saved.graph(model, signature.resolution)(tf.constant(images))
        logits = files.run(data, signature.key, images.astype("float32"))["logits"]
        compared = verify.compare(logits, np.array(expected))
        # Two graphs of the network may differ in their last bits.
        assert row["error"] == pytest.approx(compared["error"], abs=1e-7)
        delegation = verify.delegation(data, signature.key, signature.resolution)
        errors = {key: row[key] for key in ("error", "largest_error")}
        assert row == compared | delegation | errors
        assert row["error"] < saved.TOLERANCE and row["agreement"] == 1
        assert row["fallbacks"] == {} and row["operators"] > 5
    dynamic = verify.Signature(tflite.DYNAMIC_KEY, 56, None)
    assert dynamic.title == "serving_default 56"


def _with_kernel(data, change):
    """The file with its largest buffer changed."""
    parsed = flatbuffer.read(data)
    sizes = [0 if b.data is None else len(b.data) for b in parsed.buffers]
    buffer = parsed.buffers[int(np.argmax(sizes))]
    values = np.frombuffer(buffer.data.tobytes(), np.float32).copy()
    change(values)
    buffer.data = values.view(np.uint8)
    return flatbuffer.write(parsed)


def test_a_file_that_computes_something_else_is_refused(exported, tiny):
    model, data, signatures = exported

    def zero(values):
        values[: len(values) // 2] = 0

    def spoil(values):
        values[7] = np.nan

    for change in (zero, spoil):
        with pytest.raises(output.VerificationError) as error:
            verify.verify(_with_kernel(data, change), model, signatures, "float32")
        text = str(error.value)
        assert text.startswith("The logits of r64 differ from the network's by ")
        assert text.endswith("; float32 allows 0.0001. Nothing was written.")
    assert "by nan of their norm" in text
    # Right at one resolution only: another one's batch normalization is not its own.
    other = saved.spread(tiny())
    for weight in other.weights:
        if weight.name == "gamma":
            weight.assign(np.concatenate([weight[:1], weight[2:], weight[1:2]]))
    with pytest.raises(output.VerificationError, match="^The logits of r48 differ"):
        verify.verify(data, other, signatures, "float32")


def test_too_little_agreement_is_refused(exported, monkeypatch):
    model, data, signatures = exported
    compare = verify.compare
    monkeypatch.setattr(
        verify,
        "compare",
        lambda *logits, **options: {**compare(*logits, **options), "agreement": 0.95},
    )
    with pytest.raises(output.VerificationError) as error:
        verify.verify(data, model, signatures, "float32")
    assert str(error.value) == (
        "r64 agrees with the network on the class of 95.0% of the images; "
        "--min_agreement asks for 99.0%. Nothing was written."
    )
    report = verify.verify(data, model, signatures, "float32", min_agreement=0.95)
    assert report["min_agreement"] == 0.95
    assert report["signatures"]["r64"]["agreement"] == 0.95

"""Accuracies are counted as numpy counts them."""

import numpy as np

from rs_keras.evaluation import evaluator
from rs_keras.evaluation import report


class Lookup:
    """A model whose outputs are given: images hold the row of the logits."""

    keys = (64, 32)
    num_classes = 7
    alpha = np.array([2.0, 0.0], np.float32)
    compiled = False

    def __init__(self, logits):
        self.logits = logits

    def predict_on_batch(self, images):
        return {key: self.logits[key][rows] for key, rows in images.items()}


def batches(labels, keys, size):
    for start in range(0, len(labels), size):
        rows = np.arange(start, min(start + size, len(labels)))
        yield dict.fromkeys(keys, rows), labels[rows]


def setup(keys=(64, 32), count=50):
    generator = np.random.default_rng(0)
    logits = {k: generator.standard_normal((count, 7)).astype("float32") for k in keys}
    return logits, generator.integers(0, 6, count)  # class 6 never occurs


def test_accuracies_of_branches_and_ensemble_equal_numpy():
    logits, labels = setup()
    found = evaluator.evaluate(Lookup(logits), batches(labels, (64, 32), 16))
    shares = np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum()
    outputs = {
        "64": logits[64],
        "32": logits[32],
        "ensemble": shares[0] * logits[64] + shares[1] * logits[32],
    }
    for key, values in outputs.items():
        row = found["ensemble"] if key == "ensemble" else found["resolutions"][key]
        best = values.argmax(-1)
        order = np.argsort(-values, axis=-1)[:, :5]
        per_class = [np.mean(best[labels == c] == c) for c in range(6)]
        np.testing.assert_allclose(row["top1"], np.mean(best == labels))
        np.testing.assert_allclose(
            row["top5"], np.mean((order == labels[:, None]).any(axis=-1))
        )
        np.testing.assert_allclose(row["mean_class"], np.mean(per_class))


def test_losses_are_means_over_images_whatever_the_batches():
    logits, labels = setup()
    one = evaluator.evaluate(Lookup(logits), batches(labels, (64, 32), 50))["losses"]
    many = evaluator.evaluate(Lookup(logits), batches(labels, (64, 32), 7))["losses"]
    assert set(one) >= {"loss", "classification", "ensemble", "distillation"}
    for name in one:
        # float32 sums in another order
        np.testing.assert_allclose(one[name], many[name], rtol=1e-5)


def test_untrained_resolutions_alone_have_no_ensemble():
    logits, labels = setup(keys=(48, 40))
    found = evaluator.evaluate(
        Lookup(logits), batches(labels, (48, 40), 16), keys=(48, 40)
    )
    assert set(found["resolutions"]) == {"48", "40"}
    assert found["ensemble"] is None and found["losses"] is None


def test_top5_is_none_below_six_classes():
    accuracy = evaluator.Accuracy(5)
    accuracy.update(np.array([0, 1]), np.eye(5)[:2])
    assert accuracy.result() == {"top1": 1.0, "top5": None, "mean_class": 1.0}


def test_table_shows_every_row():
    row = {"top1": 0.5, "top5": None, "mean_class": 0.25}
    text = report.table(
        {
            "resolutions": {"64": {**row, "macs": 2_000_000}, "32": {**row, "macs": 1}},
            "ensemble": row,
            "alpha": [0.7, 0.3],
            "parameters": 1234,
        }
    )
    assert "64 " in text and "2.0 M" in text and "ensemble" in text
    assert "0.70, 0.30" in text and "1,234" in text

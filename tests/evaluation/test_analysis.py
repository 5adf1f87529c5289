"""What the papers look at, counted by hand."""

import numpy as np

from rs_keras.evaluation import analysis
from tests.evaluation import test_evaluator


def test_hits_are_those_of_numpy_whatever_the_batches():
    logits, labels = test_evaluator.setup()
    model = test_evaluator.Lookup(logits)
    batches = test_evaluator.batches(labels, (64, 32), 16)
    found = analysis.hits(model, batches)
    for key in (64, 32):
        np.testing.assert_array_equal(found[key], logits[key].argmax(-1) == labels)


def test_shares_are_those_of_all_images():
    found = {
        64: np.array([True, True, True, False]),
        48: np.array([True, False, False, False]),
        32: np.array([False, False, True, True]),
    }
    assert analysis.hit_miss(found) == {
        "64": {"48": 0.0, "32": 0.25},
        "48": {"64": 0.5, "32": 0.5},
        "32": {"64": 0.5, "48": 0.25},
    }

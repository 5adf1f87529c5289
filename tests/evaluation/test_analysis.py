"""What the papers look at, counted by hand."""

import numpy as np

from rs_keras.evaluation import analysis
from tests.evaluation import test_evaluator


def test_hits_are_those_of_numpy_whatever_the_batches():
    logits, labels = test_evaluator.setup()
    model = test_evaluator.Lookup(logits)
    batches = test_evaluator.batches(labels, (64, 32), 16)
    found_labels, found = analysis.hits(model, batches)
    np.testing.assert_array_equal(found_labels, labels)
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


def test_features_are_what_the_head_is_given(tiny, batch):
    model = tiny()
    images, _ = batch(n=5, side=48)
    found = analysis.features(model, [images[:3], images[3:]], 48)
    expected = np.asarray(model(images, resolution=48))
    np.testing.assert_allclose(model.head(found), expected, rtol=1e-4, atol=1e-5)


def test_distributions_are_compared_as_kolmogorov_and_smirnov_do():
    generator = np.random.default_rng(0)
    train, test = generator.exponential(1, (40, 5)), generator.exponential(2, (40, 5))
    found = analysis.cumulative(train, test)
    points = np.linspace(0, 20, 20001)
    gap = np.abs(
        (train.ravel()[:, None] <= points).mean(0)
        - (test.ravel()[:, None] <= points).mean(0)
    ).max()
    np.testing.assert_allclose(found["gap"], gap, atol=0.006)  # one step of 1 / 200
    np.testing.assert_allclose(found["train"][50], np.median(train))
    np.testing.assert_allclose(found["mean_test"], test.mean())
    assert analysis.cumulative(train, train)["gap"] == 0


def test_classes_are_sorted_by_what_the_small_image_costs():
    labels = np.array([0, 0, 1, 1, 3])
    largest = np.array([True, True, False, False, True])
    smallest = np.array([True, False, True, True, True])
    found = analysis.class_changes(labels, largest, smallest, ["a", "b", "c", "d"])
    assert list(found) == ["a", "d", "b"]  # no image of c
    assert found["a"] == {"images": 2, "largest": 1.0, "smallest": 0.5, "change": -0.5}
    assert found["b"]["change"] == 1.0

"""The trained model that the tests of its API share."""

import pytest

import rs_keras


@pytest.fixture(scope="module")
def model(tiny, batch):
    """Compiled and trained for a step, so that rows and alpha differ."""
    model = tiny(class_names=list("abcdef"))
    model.compile(rs_keras.SGD(0.05, weight_decay=1e-4))
    model.train_on_batch(*batch(side=(70, 90)))
    return model

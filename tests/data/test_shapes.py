import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from rs_keras.data import shapes

PAIRS = [(i, i + 1) for i in range(0, 12, 2)]


def _digest():
    return hashlib.sha256(shapes.generate("train", 0, 4)[0].tobytes()).hexdigest()


def test_images_are_the_same_in_every_process():
    command = (
        "import hashlib; from rs_keras.data import shapes; "
        "print(hashlib.sha256(shapes.generate('train', 0, 4)[0].tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == _digest()


def test_an_image_depends_on_its_index_alone():
    many, _ = shapes.generate("train", 0, 6)
    one, label = shapes.generate("train", 5, 6)
    np.testing.assert_array_equal(many[5], one[0])
    assert label == [5]


def test_splits_share_no_image_and_classes_are_balanced():
    train, labels = shapes.generate("train", 0, 28)
    val, _ = shapes.generate("val", 0, 28)
    assert train.shape == (28, 96, 96, 3) and train.dtype == np.uint8
    assert labels.dtype == np.int32
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in val}
    np.testing.assert_array_equal(np.bincount(labels), np.full(14, 2))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: shapes.CLASS_NAMES[p[0]])
def test_the_detail_that_tells_a_pair_apart_vanishes_at_low_resolution(pair):
    # Both classes with the same place, size, colours, background and noise.
    seeds = range(20)
    plain, detailed = (
        np.stack([shapes.render(label, np.random.default_rng(s)) for s in seeds])
        for label in pair
    )

    def strongest(resolution):
        small = [
            tf.image.resize(x.astype("float32"), [resolution] * 2, antialias=True)
            for x in (plain, detailed)
        ]
        difference = np.abs(small[0] - small[1]).mean(axis=-1)
        return np.median(difference.max(axis=(1, 2)))

    assert strongest(64) > 40
    assert strongest(24) < 0.6 * strongest(64)

import math
import pathlib
import random

import numpy as np
import pytest
import tensorflow as tf

from rs_keras import resolutions
from rs_keras.data import transforms

GOLDEN = (
    pathlib.Path(__file__).resolve().parents[2] / "../shared/golden/pipeline_rsnet.npz"
)
MODES = pytest.mark.parametrize("mode", ["eager", "tf.data"])


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"golden numbers are not here: {GOLDEN}")
    return dict(np.load(GOLDEN))


def _apply(mode, function, image):
    if mode == "eager":
        return function(tf.constant(image)).numpy()
    return next(iter(tf.data.Dataset.from_tensors(image).map(function))).numpy()


def _assert_within_one_level(actual, expected):
    assert actual.dtype == np.uint8 and actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1


@MODES
@pytest.mark.parametrize("resolution", [224, 192, 160, 128, 96])
def test_validation_equals_the_reference_within_one_level(golden, resolution, mode):
    actual = _apply(
        mode, lambda x: transforms.validation(x, resolution), golden["image"]
    )
    _assert_within_one_level(actual, golden[f"val_{resolution}"])


@MODES
@pytest.mark.parametrize("resolution", [224, 160, 96])
def test_resized_crop_equals_the_reference_within_one_level(golden, resolution, mode):
    window = [int(x) for x in golden["train_crop_ijhw"]]
    actual = _apply(
        mode,
        lambda x: transforms.squash(transforms.crop(x, window), resolution),
        golden["image"],
    )
    _assert_within_one_level(actual, golden[f"train_{resolution}"])


@MODES
def test_resizing_to_several_resolutions_at_once_equals_each(golden, mode):
    image, sides = golden["image"], (224, 192, 60)
    found = [
        _apply(mode, lambda x, n=n: transforms.squash_each(x, sides)[n], image)
        for n in range(3)
    ]
    for side, actual in zip(sides, found, strict=True):
        _assert_within_one_level(actual, transforms.squash(image, side).numpy())


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2), (7, 5), (300, 900)])
def test_one_side_after_the_other_equals_both_at_once(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    expected = tf.image.resize(image, (40, 40), antialias=True).numpy()
    actual = transforms.squash(image, 40).numpy()
    assert np.abs(actual - expected).max() <= 0.51


@MODES
def test_flip_equals_the_reference(golden, mode):
    image = golden["train_96"]
    actual = _apply(mode, lambda x: transforms.flip(x, True), image)
    np.testing.assert_array_equal(actual, golden["train_96_hflip"])
    np.testing.assert_array_equal(
        _apply(mode, lambda x: transforms.flip(x, False), image), image
    )


def test_crop_windows_equal_torchvisions_for_the_same_draws(golden):
    height, width = golden["image"].shape[:2]
    stream = random.Random(0)
    for expected in golden["rrc_params_seed0"]:
        areas, ratios, offsets = [], [], [0.0, 0.0]
        for _ in range(10):
            areas.append(stream.uniform(0.08, 1.0))
            ratios.append(math.exp(stream.uniform(math.log(3 / 4), math.log(4 / 3))))
            w = int(round(math.sqrt(areas[-1] * height * width * ratios[-1])))
            h = int(round(math.sqrt(areas[-1] * height * width / ratios[-1])))
            if 0 < w <= width and 0 < h <= height:
                free = (height - h, width - w)
                offsets = [(stream.randint(0, n) + 0.5) / (n + 1) for n in free]
                break
        # Attempts after the first that fits must not matter.
        rest = 10 - len(areas)
        window = transforms.crop_window(
            height, width, areas + [0.1] * rest, ratios + [1.0] * rest, offsets
        )
        assert [int(x) for x in window] == list(expected)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((10, 1000), (0, 493, 10, 13)),  # too wide: 4/3 of the height
        ((1000, 10), (493, 0, 13, 10)),  # too tall: the width / (3/4)
        ((1, 2000), (0, 999, 1, 1)),
        ((90, 100), (0, 0, 90, 100)),  # the proportion is allowed: everything
    ],
)
def test_where_no_attempt_fits_the_centre_is_kept(size, expected):
    never = [2.0] * 10
    window = transforms.crop_window(*size, never, [1.0] * 10, [0.9, 0.9])
    assert tuple(int(x) for x in window) == expected


def test_drawn_crops_fill_the_promised_ranges():
    @tf.function
    def draw(index):
        return transforms.draw_crop(
            300, 400, transforms.fold_seed(0, index), (0.2, 0.9)
        )

    windows = np.array([[int(x) for x in draw(i)] for i in tf.range(300)])
    top, left, height, width = windows.T
    assert (top >= 0).all() and (top + height <= 300).all()
    assert (left >= 0).all() and (left + width <= 400).all()
    area, ratio = height * width / 120000, width / height
    assert 0.195 < area.min() < 0.25 and 0.8 < area.max() < 0.905
    assert 0.74 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.35
    assert len({tuple(w) for w in windows}) > 295


def test_offsets_reach_both_ends():
    for offset, corner in ((0.0, 0), (1 - 1e-9, 50)):
        window = transforms.crop_window(
            100, 100, [0.25] * 10, [1.0] * 10, [offset, offset]
        )
        assert [int(x) for x in window] == [corner, corner, 50, 50]


def test_graph_arithmetic_equals_that_of_resolutions():
    size = tf.function(lambda h, w, r: tf.stack(transforms.validation_size(h, w, r)))
    rng = np.random.default_rng(0)
    for resolution in (224, 192, 160, 128, 112, 96, 80, 64, 48, 33):
        for height, width in rng.integers(1, 5000, (40, 2)).tolist() + [[500, 375]]:
            expected = resolutions.validation_size(height, width, resolution)
            actual = size(tf.constant(height), tf.constant(width), resolution)
            assert tuple(actual.numpy()) == expected
            for side in expected:
                offset = transforms.centre_offset(tf.constant(side), resolution)
                assert int(offset) == resolutions.centre_offset(side, resolution)


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (1, 1), (7, 5)])
def test_extreme_proportions_pass_validation(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    actual = transforms.validation(image, 224).numpy()
    np.testing.assert_array_equal(actual, np.full((224, 224, 3), 77))


def test_seeds_differ_by_seed_epoch_and_index_and_repeat():
    fold = tf.function(transforms.fold_seed)
    seen = {
        tuple(fold(*map(tf.constant, (s, e, i))).numpy())
        for s in range(3)
        for e in range(3)
        for i in range(3)
    }
    assert len(seen) == 27
    np.testing.assert_array_equal(
        transforms.fold_seed(1, 2, 3), fold(*map(tf.constant, (1, 2, 3)))
    )


def test_an_image_of_the_right_size_is_taken_as_it_is():
    """As `Classifier.predict` takes it, so that predict equals evaluate."""
    image = tf.constant(
        np.random.default_rng(0).integers(0, 256, (24, 24, 3)), tf.uint8
    )
    for run in (transforms.validation, tf.function(transforms.validation)):
        np.testing.assert_array_equal(run(image, 24), image)
        np.testing.assert_array_equal(transforms.squash(image, 24), image)
        assert not np.array_equal(run(image, 23), image[:23, :23])

"""The images of the authors' quantized runs."""

import numpy as np
import pytest
import tensorflow as tf

from rs_keras.data import official_quant
from rs_keras.data import pipeline
from rs_keras.data import sources
from tests import golden

BRANCHES = {64: 64, 48: 48, 32: 32}


@pytest.fixture(scope="module")
def image():
    y, x = np.mgrid[0:90, 0:120]
    channels = (2 * x, x + y, 90 + 60 * np.sin(x / 9) * np.cos(y / 7))
    return np.stack(channels, axis=-1).astype(np.uint8)


def train(image, seed, **options):
    images = official_quant.train_images(
        tf.constant(image), tf.constant("it"), BRANCHES, seed, **options
    )
    return {key: value.numpy() for key, value in images.items()}


@pytest.mark.parametrize("side", [224, 192, 160, 128, 96])
def test_nearest_picks_the_pixels_of_the_reference(side):
    rows = np.arange(224)
    square = tf.constant(rows[:, None] * 1000 + rows[None, :])[..., None]
    found = official_quant.nearest(square, side).numpy()[..., 0]
    expected = golden.arrays("pipeline_quant_nearest.npz")[f"nearest_idx_{side}"]
    np.testing.assert_array_equal(found // 1000, np.tile(expected[:, None], side))
    np.testing.assert_array_equal(found % 1000, np.tile(expected, (side, 1)))


def test_every_resolution_is_picked_from_the_largest(image):
    images = train(image, (1, 2))
    for side in (48, 32):
        expected = official_quant.nearest(tf.constant(images[64]), side)
        np.testing.assert_array_equal(images[side], expected)


def test_images_repeat_with_the_seed_and_differ_between_seeds(image):
    first, again, other = (train(image, seed)[64] for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def cubic(x):
    """OpenCV's kernel, as its documentation of INTER_CUBIC names it: A = -0.75."""
    a = -0.75
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("size", [(31, 200), (90, 120), (7, 5)])
def test_resize_is_cubic_without_antialiasing(image, size):
    found = official_quant.resize(tf.constant(image), size).numpy()
    weights = []
    for target, side in zip(size, image.shape, strict=False):
        matrix = np.zeros((target, side))
        for row in range(target):
            centre = (row + 0.5) * side / target - 0.5
            for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
                matrix[row, np.clip(tap, 0, side - 1)] += cubic(centre - tap)
        weights.append(matrix)
    expected = np.einsum("yh,hwc,xw->yxc", weights[0], image, weights[1])
    expected = np.clip(np.round(expected), 0, 255)
    # Halves may round to either side in float32.
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


def test_crops_are_those_of_googlenet():
    shares, wide = [], []
    for seed in range(400):
        (top, left, height, width), found = official_quant.draw_crop(90, 120, (seed, 0))
        assert found
        assert 0 <= top <= 90 - height and 0 <= left <= 120 - width
        # Sides are rounded, so proportions go a little over.
        assert 0.72 < float(width / height) < 1.39
        shares.append(int(height * width) / (90 * 120))
        wide.append(bool(width > height))
    assert 0.07 < min(shares) < 0.15 and max(shares) > 0.8
    # Swapped half of the time: neither shape dominates (large wide ones fit less).
    assert 0.35 < np.mean(wide) < 0.75


def test_strip_that_no_crop_fits_gives_its_centre():
    strip = np.zeros((8, 400, 3), np.uint8)
    strip[:, 190:210] = 255
    _, found = official_quant.draw_crop(8, 400, (0, 0), (0.9, 1.0))
    assert not found
    bright = train(strip, (0, 0), area=(0.9, 1.0))[64]
    assert bright.shape == (64, 64, 3) and bright.mean() > 200


def test_lighting_moves_all_pixels_along_the_colours():
    grey = tf.fill((4, 4, 3), tf.constant(128, tf.uint8))
    shifts = []
    for seed in range(300):
        lit = official_quant.lighting(grey, (seed, 0)).numpy().astype(int)
        assert (lit == lit[0, 0]).all()
        shifts.append(lit[0, 0] - 128)
    # The first component dominates: 255 * 0.2175 * 0.1 * 0.57 grey levels.
    np.testing.assert_allclose(np.std(shifts, axis=0), 3.2, atol=0.5)


def test_validation_is_the_centre_at_the_largest_resolution(image):
    branches = {64: 64, 48: 48}
    arguments = tf.constant(image), tf.constant("it"), branches
    images = official_quant.validation_images(*arguments, 64)
    # The shorter side, 90, becomes int(64 / 0.875) = 73, the other 97.
    whole = official_quant.resize(tf.constant(image), (73, 97)).numpy()
    np.testing.assert_array_equal(images[64], whole[4:68, 16:80])
    np.testing.assert_array_equal(
        images[48], official_quant.nearest(tf.constant(whole[4:68, 16:80]), 48)
    )


def test_datasets_have_it():
    source = sources.open_source("shapes", "train")
    options = {"batch_size": 4, "preprocessing": "official_quant"}
    images, labels = next(
        iter(pipeline.train_dataset(source, (64, 32), epochs=1, seed=0, **options))
    )
    np.testing.assert_array_equal(
        images[32][0], official_quant.nearest(images[64][0], 32)
    )
    validation = pipeline.val_dataset(source, (48,), largest=64, **options)
    images, _ = next(iter(validation))
    base, _ = next(iter(pipeline.val_dataset(source, (64,), **options)))
    np.testing.assert_array_equal(
        images[48][0], official_quant.nearest(base[64][0], 48)
    )
    assert labels.shape == (4,)
    with pytest.raises(ValueError, match="`preprocessing` must be one of .*'mine'"):
        options["preprocessing"] = "mine"
        pipeline.train_dataset(source, (64,), epochs=1, seed=0, **options)

"""What happens to one image: seeds, random crops, antialiased resizes.

Pure TensorFlow functions, eager and in graphs. Nothing here keeps a random state:
every choice is a function of the seed that is handed in.
"""

import math

import numpy as np
import tensorflow as tf

from rs_keras import resolutions as resolutions_lib

ASPECT = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10
_NOWHERE = (0.0, 0.0)


def fold_seed(seed, *values):
    """A seed for tf.random.stateless_*: `fold_seed(seed, epoch, index[, branch])`.

    Args:
        seed: int, or a seed (2,) int64 from an earlier call.
        *values: integers or scalar integer tensors.

    Returns:
        Tensor (2,) int64.
    """
    seed = tf.cast(seed, tf.int64)
    if seed.shape.rank == 0:
        seed = tf.stack([seed, tf.zeros_like(seed)])
    for value in values:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(value, tf.int64))
    return seed


def crop_window(height, width, areas, ratios, offsets):
    """The window of a random resized crop, from numbers already drawn.

    A window of area `a * height * width` and proportion width / height = `q` is
    w = round(sqrt(a h w q)), h = round(sqrt(a h w / q)); the first attempt that fits
    counts. Where none fits: the centre, as large as the proportions allow. This is
    torchvision's RandomResizedCrop, which the reference uses.

    Args:
        height, width: scalar int tensors, pixels.
        areas, ratios: (attempts,) floats, shares of the image's area and proportions.
        offsets: (2,) floats in [0, 1), where the window lies among the places that
            it can take, vertically and horizontally.

    Returns:
        (top, left, height, width), scalar int32 tensors.
    """
    # Double precision, as in the reference: single rounds some windows differently.
    areas, ratios = tf.cast(areas, tf.float64), tf.cast(ratios, tf.float64)
    offsets = tf.cast(offsets, tf.float64)
    size = tf.cast(tf.stack([height, width]), tf.float64)
    target = areas * size[0] * size[1]
    sizes = tf.round(tf.sqrt(tf.stack([target / ratios, target * ratios], axis=1)))
    fits = tf.reduce_all((sizes > 0) & (sizes <= size), axis=1)

    proportion = size[1] / size[0]
    whole = tf.stack(
        [
            tf.where(proportion < ASPECT[0], tf.round(size[1] / ASPECT[0]), size[0]),
            tf.where(proportion > ASPECT[1], tf.round(size[0] * ASPECT[1]), size[1]),
        ]
    )
    # argmax finds the first attempt that fits
    found = tf.reduce_any(fits)
    window = tf.where(found, sizes[tf.argmax(fits)], whole)
    free = size - window
    corner = tf.where(found, tf.floor(offsets * (free + 1)), tf.floor(free / 2))
    # offsets just below 1 may round up
    corner = tf.minimum(corner, free)
    return tuple(tf.unstack(tf.cast(tf.concat([corner, window], 0), tf.int32)))


def draw_crop(height, width, seed, area=(0.08, 1.0)):
    """Draws a random resized crop: area uniform in `area`, proportion log-uniform.

    Args:
        height, width: scalar int tensors, pixels.
        seed: (2,) integers.
        area: (smallest, largest) share of the image's area.

    Returns:
        (top, left, height, width), scalar int32 tensors.
    """
    # All attempts at once: one kernel instead of a loop.
    draws = tf.random.stateless_uniform(
        (2 * CROP_ATTEMPTS + 2,), seed, dtype=tf.float64
    )
    areas = area[0] + (area[1] - area[0]) * draws[:CROP_ATTEMPTS]
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    ratios = tf.exp(low + (high - low) * draws[CROP_ATTEMPTS : 2 * CROP_ATTEMPTS])
    return crop_window(height, width, areas, ratios, draws[2 * CROP_ATTEMPTS :])


def crop(image, window):
    """The part (top, left, height, width) of an image (H, W, 3)."""
    top, left, height, width = window
    return image[top : top + height, left : left + width]


def flip(image, mirrored):
    """Mirrors an image (H, W, 3) left to right where the scalar bool says so."""
    dims = tf.stack([False, mirrored, False])
    return tf.raw_ops.Reverse(tensor=image, dims=dims)


def squash(image, resolution):
    """Resizes to r x r whatever the proportion.

    Bilinear and antialiased, rounded to grey levels: equals PIL's bilinear, which the
    reference uses, within one level.

    Args:
        image: (H, W, 3) uint8.
        resolution: r, int.

    Returns:
        Tensor (r, r, 3) uint8.
    """
    return _resize(image, (resolution, resolution), (0, 0), resolution)


def squash_each(image, resolutions):
    """`squash` to each of several resolutions, at less cost.

    Args:
        image: (H, W, 3) uint8, no side many times as long as the other.
        resolutions: ints.

    Returns:
        List of tensors (r, r, 3) uint8.
    """
    # Few operations: on small images their number is what takes the time.
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    scales = np.stack([resolutions, resolutions], axis=1) / sides  # (S, 2)
    ones = np.ones(len(resolutions), np.float32)
    down, across = (
        tf.unstack(tf.stack([scales[:, axis], ones], axis=1)) for axis in (0, 1)
    )
    rows, found = _as_rows(image), []
    for n, r in enumerate(resolutions):
        # The smaller image is turned: to turn the crop costs more than it saves.
        x = _turn(tf.reshape(_resize_rows(rows, down[n], _NOWHERE, r), (r, -1, 3)))
        x = tf.reshape(x, (1, -1, 1, 3 * r))
        x = _grey_levels(_resize_rows(x, across[n], _NOWHERE, r))
        found.append(_turn(tf.reshape(x, (r, r, 3))))
    return found


def squash_chained(image, resolutions):
    """`squash` to the first resolution, and to each other one from the one before it.

    Steps of up to 1.5 are bilinear without antialiasing: half the time of the exact
    kernel, and closer to what the image itself would give, because they blur less.

    Arguments and return value as for `squash_each`; resolutions descending.
    """
    found = squash_each(image, resolutions[:1])
    for above, r in zip(resolutions, resolutions[1:], strict=False):
        if above > 1.5 * r:
            found += squash_each(found[-1], (r,))
            continue
        x = tf.raw_ops.ResizeBilinear(
            images=found[-1][None], size=[r, r], half_pixel_centers=True
        )
        found.append(_grey_levels(x[0]))
    return found


def validation(image, resolution):
    """Resizes the shorter side to int(r / 0.875) and keeps the centre r x r.

    An image that is r x r already is taken as it is, as `Classifier.predict` takes it;
    the reference would magnify it and cut off its border.

    Args:
        image: (H, W, 3) uint8.
        resolution: r, int.

    Returns:
        Tensor (r, r, 3) uint8.
    """

    def centre():
        size = validation_size(*tf.unstack(tf.shape(image)[:2]), resolution)
        offsets = [centre_offset(side, resolution) for side in size]
        return _resize(image, size, offsets, resolution)

    native = tf.reduce_all(tf.shape(image)[:2] == resolution)
    pixels = tf.cond(native, lambda: image, centre)
    return tf.ensure_shape(pixels, (resolution, resolution, 3))


def validation_size(height, width, resolution):
    """`resolutions.validation_size` for sizes that come as tensors: int64 tensors."""
    return resolutions_lib.validation_size(
        tf.cast(height, tf.int64),
        tf.cast(width, tf.int64),
        resolution,
        minimum=tf.minimum,
    )


def centre_offset(size, resolution):
    """`resolutions.centre_offset` for a size that comes as a tensor: int32 tensor."""
    return tf.cast(tf.round(tf.cast(size - resolution, tf.float64) / 2), tf.int32)


def _resize(image, size, offsets, resolution):
    """The r x r pixels from `offsets` on of the image resized to `size`.

    What tf.image.resize(antialias=True) and a crop would give, but without the pixels
    that would be cropped away: of a 1 x 2000 image these are half a million rows.
    """
    size, offsets = tf.cast(size, tf.float32), tf.cast(offsets, tf.float32)
    scale = size / tf.cast(tf.shape(image)[:2], tf.float32)

    def rows(x, axis):
        along = tf.stack([scale[axis], 1.0]), tf.stack([-offsets[axis], 0.0])
        return tf.reshape(
            _resize_rows(_as_rows(x), *along, resolution), (resolution, -1, 3)
        )

    def tall():
        return _turn(_grey_levels(rows(_turn(rows(image, 0)), 1)))

    def wide():
        return _grey_levels(rows(_turn(rows(_turn(image), 1)), 0))

    # Of an extreme image the longer side first, so that little is left in between.
    extreme = tf.shape(image)[1] > 8 * tf.shape(image)[0]
    pixels = tf.cond(extreme, wide, tall)
    return tf.ensure_shape(pixels, (resolution, resolution, 3))


def _resize_rows(rows, scale, translation, resolution):
    """Resizes the first of two axes, antialiased: (1, n, 1, m) -> (1, r, 1, m) float32.

    One side after the other, because TensorFlow's kernel is fast on rows and slow on
    columns: all five resolutions of a crop take half the time.

    Args:
        rows: an image of one column, each of whose pixels is a row of numbers.
        scale, translation: (2,) float32, of which the second numbers change nothing.
        resolution: r, int.
    """
    return tf.raw_ops.ScaleAndTranslate(
        images=rows,
        size=[resolution, 1],
        scale=scale,
        translation=translation,
        kernel_type="triangle",
        antialias=True,
    )


def _as_rows(x):
    """(n, m, 3) -> (1, n, 1, 3 m)."""
    return tf.reshape(x, tf.stack([1, tf.shape(x)[0], 1, -1]))


def _turn(x):
    """Rows become columns."""
    return tf.transpose(x, (1, 0, 2))


def _grey_levels(x):
    # Means of grey levels: none is out of range.
    return tf.cast(x + 0.5, tf.uint8)

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
# Pixels up to which turning an image costs little.
_SMALL = 400_000


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
    return squash_each(image, (resolution,))[0]


def squash_each(image, resolutions):
    """`squash` to each of several resolutions, at less cost.

    Args:
        image: (H, W, 3) uint8.
        resolutions: ints.

    Returns:
        List of tensors (r, r, 3) uint8.
    """
    size = np.stack([resolutions, resolutions], axis=1)  # (S, 2)
    return _resize_each(image, size, np.zeros_like(size), resolutions)


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
        found.append(tf.cast(x[0] + 0.5, tf.uint8))
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
    return validation_each(image, (resolution,))[0]


def validation_each(image, resolutions):
    """`validation` to each of several resolutions, at less cost: a list."""
    shape = tf.shape(image)[:2]
    sizes = [validation_size(*tf.unstack(shape), r) for r in resolutions]
    offsets = [
        [centre_offset(side, r) for side in size]
        for size, r in zip(sizes, resolutions, strict=True)
    ]
    found = []
    resized = _resize_each(image, sizes, offsets, resolutions)
    for r, pixels in zip(resolutions, resized, strict=True):
        native = tf.reduce_all(shape == r)
        pixels = tf.cond(native, lambda: image, lambda pixels=pixels: pixels)
        found.append(tf.ensure_shape(pixels, (r, r, 3)))
    return found


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


def _resize_each(image, sizes, offsets, resolutions):
    """The r x r pixels from offsets (S, 2) on of the image resized to sizes (S, 2).

    What tf.image.resize(antialias=True) and a crop would give, but without the pixels
    that would be cropped away: of a 1 x 2000 image these are half a million rows.

    One side after the other, because TensorFlow's kernel is fast on rows and slow on
    columns: the five resolutions of a crop take half the time.
    """
    # Few operations: on small images their number is what takes the time.
    scale = tf.cast(sizes, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    translation = -tf.cast(offsets, tf.float32)
    along = [  # by axis: scale and translation of each, along that axis alone
        (
            tf.unstack(tf.stack([scale[:, axis], tf.ones_like(scale[:, axis])], 1)),
            tf.unstack(tf.stack([translation[:, axis], 0 * translation[:, axis]], 1)),
        )
        for axis in (0, 1)
    ]

    def beginning_with(axis):
        first, second = along[axis], along[1 - axis]
        rows, found = _as_rows(_turn(image) if axis else image), []
        for n, r in enumerate(resolutions):
            x = _resize_rows(rows, first[0][n], first[1][n], r)
            x = tf.reshape(_turn(tf.reshape(x, (r, -1, 3))), (1, -1, 1, 3 * r))
            x = _resize_rows(x, second[0][n], second[1][n], r)
            # Means of grey levels: none is out of range.
            x = tf.reshape(tf.cast(x + 0.5, tf.uint8), (r, r, 3))
            found.append(x if axis else _turn(x))
        return found

    # To turn a small image saves turning every result, to turn a large one costs more.
    # Of an extreme one the longer side comes first, so that little is left in between.
    height, width = tf.unstack(tf.shape(image)[:2])
    turned = tf.where(height * width <= _SMALL, height <= 8 * width, width > 8 * height)
    return tf.cond(turned, lambda: beginning_with(1), lambda: beginning_with(0))


def _resize_rows(rows, scale, translation, resolution):
    """Resizes the first of two axes, antialiased: (1, n, 1, m) -> (1, r, 1, m) float32.

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

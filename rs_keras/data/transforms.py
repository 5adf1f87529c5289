"""What happens to one image: seeds, random crops, antialiased resizes.

Pure TensorFlow functions, eager and in graphs. Nothing here keeps a random state:
every choice is a function of the seed that is handed in.
"""

import math

import tensorflow as tf

from rs_keras import resolutions as resolutions_lib

ASPECT = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10


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
    return tf.where(mirrored, tf.reverse(image, [1]), image)


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
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[resolution, resolution],
        scale=scale,
        translation=-tf.cast(offsets, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]
    pixels = tf.clip_by_value(tf.round(pixels), 0, 255)
    return tf.ensure_shape(tf.cast(pixels, tf.uint8), (resolution, resolution, 3))

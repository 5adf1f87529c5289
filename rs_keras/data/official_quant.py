"""The images of RS-Nets' quantized runs, as the authors' code makes them.

Their paper describes the pre-processing of `multi_resolution`; their TensorFlow code
for LQ-Nets does something else, which made the numbers of Table 3: a GoogLeNet crop
resized to the largest resolution (cubic, not antialiased), noise along the principal
components of the colours, one flip, and every other resolution picked from the pixels
of that image. Validation cuts the largest resolution from the centre and picks the
others from it. Better at small sizes is the paper's way, which is the default.
"""

import numpy as np
import tensorflow as tf

from rs_keras import resolutions as resolutions_lib
from rs_keras.data import decoding
from rs_keras.data import transforms

# OpenCV's INTER_CUBIC; TensorFlow's own has -0.5.
CUBIC = -0.75
# Krizhevsky et al. 2012: the colours of ImageNet, in grey levels.
LIGHTING_STD = 0.1
EIGENVALUES = 255 * np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)
# The random choices of an image, told apart by these numbers in the seed.
_CROP, _FLIP, _LIGHTING = 0, 1, 2


def train_images(image, name, branches, seed, *, area=(0.08, 1.0)):
    """Arguments and return value as for `multi_resolution.train_images`."""
    largest = max(branches.values())
    whole = decoding.attempt(decoding.decode, image, name)
    window, found = draw_crop(
        *tf.unstack(tf.shape(whole)[:2]), transforms.fold_seed(seed, _CROP), area
    )
    pixels = tf.cond(
        found,
        lambda: resize(transforms.crop(whole, window), (largest, largest)),
        lambda: _centre(whole, largest, largest),
    )
    pixels = tf.ensure_shape(pixels, (largest, largest, 3))
    pixels = lighting(pixels, transforms.fold_seed(seed, _LIGHTING))
    coin = tf.random.stateless_uniform((), transforms.fold_seed(seed, _FLIP))
    pixels = transforms.flip(pixels, coin < 0.5)
    return {key: nearest(pixels, r) for key, r in branches.items()}


def validation_images(image, name, branches, base):
    """The validation image of every resolution, picked from that at `base` pixels.

    Args:
        base: the largest trained resolution. Others as in `multi_resolution`.
    """
    whole = decoding.attempt(decoding.decode, image, name)
    shorter = int(base / resolutions_lib.CENTRE_CROP_FRACTION)
    pixels = tf.ensure_shape(_centre(whole, shorter, base), (base, base, 3))
    return {key: nearest(pixels, r) for key, r in branches.items()}


def draw_crop(height, width, seed, area=(0.08, 1.0)):
    """Draws a GoogLeNet crop: proportions uniform, sides swapped half of the time.

    Args:
        height, width: scalar int tensors, pixels.
        seed: (2,) integers.
        area: (smallest, largest) share of the image's area.

    Returns:
        (top, left, height, width), scalar int32 tensors, and whether any of ten
        attempts fits.
    """
    draws = tf.random.stateless_uniform(
        (3 * transforms.CROP_ATTEMPTS + 2,), seed, dtype=tf.float64
    )
    shares, ratios, swaps = tf.unstack(
        tf.reshape(draws[: 3 * transforms.CROP_ATTEMPTS], (3, transforms.CROP_ATTEMPTS))
    )
    size = tf.cast(tf.stack([height, width]), tf.float64)
    target = (area[0] + (area[1] - area[0]) * shares) * size[0] * size[1]
    ratios = (
        transforms.ASPECT[0] + (transforms.ASPECT[1] - transforms.ASPECT[0]) * ratios
    )
    sizes = tf.floor(
        tf.sqrt(tf.stack([target / ratios, target * ratios], axis=1)) + 0.5
    )
    sizes = tf.where(swaps[:, None] < 0.5, tf.reverse(sizes, [1]), sizes)
    fits = tf.reduce_all((sizes > 0) & (sizes <= size), axis=1)
    window = sizes[tf.argmax(fits)]
    # As there, the last place is never taken.
    corner = tf.floor(draws[3 * transforms.CROP_ATTEMPTS :] * (size - window))
    window = tf.unstack(tf.cast(tf.concat([corner, window], 0), tf.int32))
    return tuple(window), tf.reduce_any(fits)


def lighting(image, seed):
    """Adds noise along the principal components of the colours.

    Args:
        image: (H, W, 3) uint8.
        seed: (2,) integers.

    Returns:
        Tensor (H, W, 3) uint8.
    """
    strengths = LIGHTING_STD * tf.random.stateless_normal((3,), seed, dtype=tf.float64)
    shift = tf.linalg.matvec(EIGENVECTORS, EIGENVALUES * strengths)
    pixels = tf.cast(image, tf.float32) + tf.cast(shift, tf.float32)
    # Towards zero, as there.
    return tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)


def nearest(image, resolution):
    """Picks r x r pixels of a square image: floor(i * side / r) in float32.

    TensorFlow 1's nearest neighbour; TensorFlow 2 takes the centres of the pixels and
    picks others half of the time.

    Args:
        image: (side, side, 3).
        resolution: r, int.

    Returns:
        Tensor (r, r, 3), in the dtype of the image.
    """
    side = image.shape[0]
    step = np.float32(side / resolution)
    places = np.floor(np.arange(resolution, dtype=np.float32) * step).astype(np.int32)
    # Above the side (an untrained resolution) the last place may round up to it.
    places = np.minimum(places, side - 1)
    return tf.gather(tf.gather(image, places, axis=0), places, axis=1)


def resize(image, size):
    """Cubic interpolation without antialiasing, as OpenCV's INTER_CUBIC.

    Args:
        image: (H, W, 3) uint8.
        size: (height, width), ints or scalar int tensors.

    Returns:
        Tensor (height, width, 3) uint8.
    """
    pixels = tf.cast(image, tf.float32)
    for axis in (0, 1):
        pixels = _resize_axis(pixels, size[axis], axis)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


def _resize_axis(pixels, target, axis):
    side = tf.shape(pixels)[axis]
    scale = tf.cast(side, tf.float64) / tf.cast(target, tf.float64)
    centres = (tf.range(target, dtype=tf.float64) + 0.5) * scale - 0.5
    first = tf.floor(centres)
    fraction = centres - first
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = 0.0
    for tap in (-1, 0, 1, 2):
        place = tf.clip_by_value(tf.cast(first, tf.int32) + tap, 0, side - 1)
        weight = tf.cast(_cubic(tf.abs(fraction - tap)), tf.float32)
        total += tf.gather(pixels, place, axis=axis) * tf.reshape(weight, shape)
    return total


def _cubic(x):
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
    return tf.where(x <= 1, near, tf.where(x < 2, far, tf.zeros_like(x)))


def _centre(image, shorter, side):
    """The shorter side resized to `shorter`, then the centre side x side."""
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    scale = shorter / tf.reduce_min(size)
    # The other side is rounded to the nearest.
    target = tf.cast(tf.floor(size * scale + 0.5), tf.int32)
    pixels = resize(image, tf.unstack(target))
    top, left = tf.unstack((target - side) // 2)
    return pixels[top : top + side, left : left + side]

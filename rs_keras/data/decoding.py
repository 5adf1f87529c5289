"""From the bytes of an image file to pixels, or to an error that names the file."""

import re

import tensorflow as tf

from rs_keras.data import transforms

# Sides of a JPEG are read from its header before a crop is decoded; a header that lies
# must not allocate gigabytes. TensorFlow's limit for whole images is about the same.
MAXIMUM_PIXELS = 2**29


def decode(image):
    """Decodes a whole image.

    Args:
        image: scalar string, the bytes of a JPEG, PNG, GIF (the first frame), BMP or
            WebP file, whatever its name; or pixels (H, W, 3) uint8, returned as given.

    Returns:
        Tensor (H, W, 3) uint8, RGB.

    Raises:
        tf.errors.InvalidArgumentError: when run, for bytes that cannot be decoded.
    """
    if image.dtype == tf.uint8:
        return image
    pixels = tf.cond(
        tf.io.is_jpeg(image),
        lambda: tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(image, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(pixels, (None, None, 3))


def decode_crop(image, choose_window):
    """Decodes no more than a window of an image; otherwise as `decode`.

    Of a JPEG the lines below the window are not read, so damage there goes unnoticed.

    Args:
        image: as for `decode`.
        choose_window: function (height, width) -> (top, left, height, width).

    Returns:
        Tensor (h, w, 3) uint8, RGB.
    """

    def whole():
        pixels = decode(image)
        return transforms.crop(pixels, choose_window(*tf.unstack(tf.shape(pixels)[:2])))

    def window():
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(image))
        area = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
        tf.debugging.Assert(area <= MAXIMUM_PIXELS, ["too large", height, width])
        return tf.io.decode_and_crop_jpeg(
            image,
            tf.stack(choose_window(height, width)),
            channels=3,
            dct_method="INTEGER_ACCURATE",
        )

    if image.dtype == tf.uint8:
        return whole()
    pixels = tf.cond(tf.io.is_jpeg(image), window, whole)
    return tf.ensure_shape(pixels, (None, None, 3))


def attempt(decoder, image, name):
    """`decoder(image)`, or an error that names the file.

    TensorFlow's own decoding errors do not say which of a million files is broken, and
    graphs know no exceptions; a dataset of one element that ignores errors does. It
    costs a quarter of a millisecond an image.

    Args:
        decoder: function of `image` that returns pixels (H, W, 3) uint8.
        image: scalar string or pixels.
        name: scalar string tensor: what to call the image in the error.

    Raises:
        tf.errors.InvalidArgumentError: when run; see `failure`.
    """
    if image.dtype == tf.uint8:
        return decoder(image)
    decoded = tf.data.Dataset.from_tensors(image).map(lambda x: (True, decoder(x)))
    nothing = tf.data.Dataset.from_tensors((False, tf.zeros((0, 0, 3), tf.uint8)))
    decoded = decoded.ignore_errors(log_warning=False).concatenate(nothing).take(1)
    valid, pixels = decoded.get_single_element()
    # An image of no pixels cannot be resized either.
    valid = tf.logical_and(valid, tf.size(pixels) > 0)
    message = tf.strings.join([_SENTENCE, name])
    with tf.control_dependencies([tf.debugging.Assert(valid, [message])]):
        return tf.ensure_shape(tf.identity(pixels), (None, None, 3))


def checked_label(label, class_names, name):
    """The label, or an error that names the example where it is no class's."""
    number = len(class_names)
    received = tf.strings.join([tf.strings.as_string(label), " for ", name])
    message = tf.strings.join([_LABEL, f"[0, {number}). Received: ", received])
    valid = (label >= 0) & (label < number)
    with tf.control_dependencies([tf.debugging.Assert(valid, [message])]):
        return tf.identity(label)


_SENTENCE = "An image file is damaged or of an unknown format. Received: "
_LABEL = "Labels must be in "


def failure(error):
    """The sentence in an error of this module; None where the error is another one.

    Args:
        error: `tf.errors.OpError`, raised while a dataset was read.
    """
    starts = "|".join(map(re.escape, (_SENTENCE, _LABEL)))
    found = re.search(rf"({starts})[^\n]*(?=\])", error.message)
    return found.group() if found else None

"""From the bytes of an image file to pixels, or to an error that names the file."""

import os
import re
import sys

import tensorflow as tf

from rs_keras.data import gif
from rs_keras.data import headers
from rs_keras.data import orientation as orientation_lib
from rs_keras.data import transforms

# Headers that claim more are refused before memory is asked for: 300 MB of RGB for
# each thread that decodes. Photographs of today's cameras have up to 100 million; a
# crop may be the whole image, so that crops need no other limit.
MAXIMUM_PIXELS = 100_000_000
TOO_LARGE = "more pixels than are decoded"
# What a scan found is found again where other rules, or another TensorFlow, decide.
RULES = f"1 tensorflow-{tf.__version__}"


def decode(image):
    """Decodes a whole image, turned as its EXIF orientation says.

    Alpha is dropped, 16 bits are cut to the upper 8, of an animation it is the first
    frame. CMYK becomes RGB without regard to colour profiles, as in Pillow.

    Args:
        image: scalar string, the bytes of a JPEG, PNG, GIF, BMP or WebP file, whatever
            its name; or pixels (H, W, 3) uint8, returned as given.

    Returns:
        Tensor (H, W, 3) uint8, RGB.

    Raises:
        tf.errors.InvalidArgumentError: when run, for bytes that cannot be decoded, or
            that claim more than `MAXIMUM_PIXELS`.
    """
    if image.dtype == tf.uint8:
        return image

    def jpeg():
        checked, _ = _checked_jpeg(image)
        pixels = tf.io.decode_jpeg(checked, channels=3, dct_method="INTEGER_ACCURATE")
        return orientation_lib.turn(pixels, headers.jpeg_orientation(image))

    return _image(tf.cond(headers.is_kind(image, "JPEG"), jpeg, lambda: _other(image)))


def decode_crop(image, choose_window):
    """Decodes no more than a window of an image; otherwise as `decode`.

    Of a JPEG the lines below the window are not read, so damage there goes unnoticed.

    Args:
        image: as for `decode`.
        choose_window: function (height, width) -> (top, left, height, width), of the
            image as a person sees it.

    Returns:
        Tensor (h, w, 3) uint8, RGB.
    """

    def whole(pixels):
        return transforms.crop(pixels, choose_window(*tf.unstack(tf.shape(pixels)[:2])))

    def part(checked, window):
        return tf.io.decode_and_crop_jpeg(
            checked, window, channels=3, dct_method="INTEGER_ACCURATE"
        )

    def plain():
        checked, size = _checked_jpeg(image)
        return part(checked, tf.stack(choose_window(*size)))

    def turned():
        orientation = headers.jpeg_orientation(image)
        checked, stored = _checked_jpeg(image)
        size = orientation_lib.seen_size(*stored, orientation)
        window = orientation_lib.stored_window(choose_window(*size), *size, orientation)
        return orientation_lib.turn(part(checked, window), orientation)

    @headers.apart
    def other():
        is_jpeg = headers.is_kind(image, "JPEG")
        return tf.cond(is_jpeg, turned, lambda: whole(_other(image)))

    if image.dtype == tf.uint8:
        return whole(image)
    return _image(tf.cond(headers.is_plain_jpeg(image), plain, other))


def _checked_jpeg(image):
    """The bytes of a JPEG, to be had once its size is found not too large, and that.

    Returns:
        (image, (height, width) as stored).
    """
    size = tf.io.extract_jpeg_shape(image)[:2]
    return _checked(image, size), tf.unstack(size)


@headers.apart
def _other(image):
    """Pixels (H, W, 3) of a file that is no JPEG."""
    image = _checked(image, headers.claimed_size(image))

    def plain():
        return tf.io.decode_image(image, channels=3, expand_animations=False)

    def frame():
        cut, size = gif.first_frame(image)
        return tf.io.decode_gif(_checked(cut, size))[0]

    def webp():
        # With alpha there are four channels, which may not be asked for as three.
        pixels = tf.io.decode_image(image, channels=0, expand_animations=False)
        return orientation_lib.turn(pixels[..., :3], headers.webp_orientation(image))

    def bmp():
        pixels = tf.io.decode_bmp(image)
        # One channel holds places in a table of colours, which is often, but need not
        # be, that of the grey levels.
        return tf.cond(
            tf.shape(pixels)[-1] == 1,
            lambda: tf.gather(
                headers.bmp_colours(image), tf.cast(pixels[..., 0], tf.int32)
            ),
            lambda: pixels[..., :3],
        )

    kinds = {"GIF": frame, "WebP": webp, "BMP": bmp}
    found = tf.stack([True, *(headers.is_kind(image, kind) for kind in kinds)])
    last = len(kinds) - tf.argmax(found[::-1], output_type=tf.int32)
    return tf.switch_case(last, [plain, *kinds.values()])


def _checked(image, size):
    """The bytes of an image, to be had once the size is found not too large."""
    area = tf.reduce_prod(tf.cast(size, tf.int64))
    # `tf.debugging.Assert` would make a branch of it.
    fits = tf.raw_ops.Assert(condition=area <= MAXIMUM_PIXELS, data=[TOO_LARGE, size])
    with tf.control_dependencies(fits and [fits]):
        return tf.identity(image)


def _image(pixels):
    return tf.ensure_shape(pixels, (None, None, 3))


def attempt(decoder, image, name):
    """`decoder(image)`, or an error that names the file.

    TensorFlow's own decoding errors do not say which of a million files is broken, and
    graphs know no exceptions; a dataset of one element that ignores errors does. It
    costs half of what decoding a photograph of 0.2 million pixels does.

    Args:
        decoder: function of `image` that returns pixels (H, W, 3) uint8.
        image: scalar string or pixels.
        name: scalar string tensor: what to call the image in the error; None where
            that does not matter, which costs nothing.

    Raises:
        tf.errors.InvalidArgumentError: when run; see `failure`.
    """
    if name is None or image.dtype == tf.uint8:
        return decoder(image)
    decoded = tf.data.Dataset.from_tensors(image).map(lambda x: (True, decoder(x)))
    nothing = tf.data.Dataset.from_tensors((False, tf.zeros((0, 0, 3), tf.uint8)))
    decoded = decoded.ignore_errors(log_warning=False).concatenate(nothing).take(1)
    valid, pixels = decoded.get_single_element()
    # An image of no pixels cannot be resized either.
    valid = tf.logical_and(valid, tf.size(pixels) > 0)
    with tf.control_dependencies([tf.debugging.Assert(valid, [_sentence(name)])]):
        return tf.ensure_shape(tf.identity(pixels), (None, None, 3))


def _sentence(name):
    """What is said of a damaged image: one line, which is valid UTF-8."""
    name = tf.strings.unicode_transcode(name, "UTF-8", "UTF-8")
    line = tf.strings.regex_replace(name, r"[\r\n]", "?")
    return tf.strings.join([_SENTENCE, line])


def first_good(make, attempts, name):
    """What `make` makes of the first of some candidates that it can be made of.

    Args:
        make: function of a scalar int64, 0 to `attempts` - 1, that returns tensors.
        attempts: how many candidates there are.
        name: scalar string: what to call the first candidate in a warning, which is
            printed where another one takes its place.

    Raises:
        tf.errors.InvalidArgumentError: when run, where no candidate is good; see
            `failure`.
    """
    candidates = tf.data.Dataset.range(attempts).map(lambda k: (k, make(k)))
    _, spec = candidates.element_spec
    nothing = tf.nest.map_structure(lambda x: tf.zeros(x.shape, x.dtype), spec)
    nothing = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), nothing))
    candidates = candidates.ignore_errors(log_warning=False).concatenate(nothing)
    place, made = candidates.take(1).get_single_element()
    found = tf.debugging.Assert(place >= 0, [_sentence(name)])

    def warn():
        # Once in an epoch: to know what was said before takes a state.
        text = " is damaged; the next good image takes its place"
        line = tf.strings.join(["warning: ", name, text])
        return tf.print(line, output_stream=sys.stderr)

    with tf.control_dependencies([found, tf.cond(place > 0, warn, tf.no_op)]):
        return tf.nest.map_structure(tf.identity, made)


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


def failure_among(paths):
    """The sentence about the first of some files that cannot be decoded, or None."""
    for path in paths:
        try:
            decode(tf.io.read_file(os.fsencode(path)))
        except tf.errors.InvalidArgumentError:
            return _sentence(os.fsencode(path)).numpy().decode()
        except tf.errors.OpError:  # not there, say: another error, which has its own
            continue
    return None

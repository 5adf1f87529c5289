"""The first frame of a GIF, alone.

TensorFlow decodes every frame of an animation to return the first, takes a file that
ends in the middle for a whole one, and paints what is transparent black.
"""

import tensorflow as tf

_TRAILER = b"\x3b"
_EXTENSION, _IMAGE = 0x21, 0x2C
# A colour table follows where bit 7 is set, of 2 ** (1 + bits 0..2) colours.
_TABLE, _SIZE = 0x80, 0x07


def first_frame(image):
    """A GIF of the first frame of a GIF, without what is noted about it.

    Among the notes is the transparent colour: it is shown as what it is, as Pillow
    does; and as the alpha of other formats it is dropped.

    Args:
        image: scalar string, the bytes of a GIF.

    Returns:
        (bytes, size): scalar string, a GIF of one frame, and (height, width) of that
        frame, (2,) int64. Both are empty where the file ends before the frame does.
    """
    length = tf.strings.length(image)

    def byte(place):
        """The byte at a place; -1 behind the end."""
        inside = (place >= 0) & (place < length)
        text = tf.strings.substr(image, tf.where(inside, place, 0), 1)
        value = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)
        return tf.where(inside, tf.reduce_sum(value), -1)

    def table(flags):
        """Bytes of the colour table that flags announce."""
        colours = tf.bitwise.left_shift(2, tf.bitwise.bitwise_and(flags, _SIZE))
        return tf.where(tf.bitwise.bitwise_and(flags, _TABLE) > 0, 3 * colours, 0)

    def behind_blocks(place):
        """The place behind a chain of blocks, each with its length in front."""
        place = tf.while_loop(
            lambda place: byte(place) > 0,
            lambda place: (place + 1 + byte(place),),
            (place,),
            parallel_iterations=1,
        )[0]
        return place + 1

    # Extensions (comments, timing, transparency) stand before the frame.
    head = 13 + table(tf.maximum(byte(10), 0))
    start = tf.while_loop(
        lambda place: byte(place) == _EXTENSION,
        lambda place: (behind_blocks(place + 2),),
        (head,),
        parallel_iterations=1,
    )[0]

    def frame():
        flags = byte(start + 9)
        end = behind_blocks(start + 10 + table(flags) + 1)
        text = tf.strings.substr(image, start + 5, 4)
        sides = tf.cast(tf.io.decode_raw(text, tf.uint16), tf.int64)
        parts = [
            tf.strings.substr(image, 0, head),
            tf.strings.substr(image, start, end - start),
            _TRAILER,
        ]
        complete = (end <= length) & (byte(end - 1) == 0)
        whole = tf.strings.join(parts)
        return tf.where(complete, whole, ""), tf.where(complete, sides[::-1], 0)

    nothing = (tf.constant(b""), tf.zeros((2,), tf.int64))
    there = (byte(start) == _IMAGE) & (start + 10 <= length)
    cut, size = tf.cond(there, frame, lambda: nothing)
    return tf.ensure_shape(cut, ()), tf.ensure_shape(size, (2,))

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

    # Extensions (comments, timing, transparency) stand before the frame; they and the
    # frame end in a chain of blocks, each with its length in front. `start` is that of
    # the frame, and 0 before it is found.
    head = 13 + table(tf.maximum(byte(10), 0))

    def more(place, within, start):
        return (place < length) & (within | (start == 0))

    def step(place, within, start):
        value = byte(place)
        frame = ~within & (value == _IMAGE)
        extension = ~within & (value == _EXTENSION)
        pixels = place + 11 + table(tf.maximum(byte(place + 9), 0))
        follows = tf.where(within, place + 1 + value, length + 1)
        follows = tf.where(extension, place + 2, tf.where(frame, pixels, follows))
        within = tf.where(within, value > 0, extension | frame)
        return follows, within, tf.where(frame, place, start)

    end, within, start = tf.while_loop(
        more, step, (head, False, 0), parallel_iterations=1
    )
    whole = ~within & (start > 0) & (end <= length)
    sides = tf.strings.substr(image, tf.where(whole, start + 5, 0), 4)
    sides = tf.cast(tf.io.decode_raw(sides, tf.uint16), tf.int64)[::-1]
    parts = [
        tf.strings.substr(image, 0, head),
        tf.strings.substr(image, tf.where(whole, start, 0), end - start),
        _TRAILER,
    ]
    return tf.where(whole, tf.strings.join(parts), ""), tf.where(whole, sides, 0)

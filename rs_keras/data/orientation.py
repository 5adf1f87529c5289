"""The eight ways in which a camera may have been held, as EXIF numbers them.

The pixels are stored as the sensor saw them; a person sees them turned:

    1 as stored   2 mirrored               3 turned by 180°  4 flipped
    5 transposed  6 turned right by 90°    7 transversed     8 turned left by 90°

Each is a transposition (5 to 8), then rows reversed (3, 4, 7, 8), then columns
reversed (2, 3, 6, 7).
"""

import tensorflow as tf


def _parts(orientation):
    rows = tf.reduce_any(orientation == [3, 4, 7, 8])
    columns = tf.reduce_any(orientation == [2, 3, 6, 7])
    return orientation >= 5, rows, columns


def seen_size(height, width, orientation):
    """(height, width) as seen, of the size as stored."""
    transposed = orientation >= 5
    return tf.where(transposed, width, height), tf.where(transposed, height, width)


def turn(pixels, orientation):
    """Pixels (h, w, 3) as stored to pixels as seen; costs nothing for 1."""

    def turned():
        transposed, rows, columns = _parts(orientation)
        upright = tf.transpose(pixels, tf.where(transposed, [1, 0, 2], [0, 1, 2]))
        return tf.raw_ops.Reverse(
            tensor=upright, dims=tf.stack([rows, columns, tf.constant(False)])
        )

    return tf.cond(orientation == 1, lambda: pixels, turned)


def stored_window(window, height, width, orientation):
    """Where a window of the image as seen lies in the image as stored.

    Args:
        window: (top, left, height, width) as seen.
        height, width: of the image as seen.
        orientation: scalar int32, 1 to 8.

    Returns:
        Tensor (4,) int32: (top, left, height, width) as stored.
    """
    transposed, rows, columns = _parts(orientation)
    top, left, h, w = window
    top = tf.where(rows, height - top - h, top)
    left = tf.where(columns, width - left - w, left)
    return tf.where(transposed, [left, top, w, h], [top, left, h, w])

"""What is said of an example that cannot be used, as one sentence that names it."""

import contextlib

import tensorflow as tf

from rs_keras.data import decoding


class DamagedImage(ValueError):
    """An example that cannot be used, named: no image, or a label out of range."""


@contextlib.contextmanager
def damaged_images(suspects=lambda: ()):
    """Raises `DamagedImage` for an example that a dataset read within cannot use.

    Args:
        suspects: function of no arguments: paths of files, one of which it is where
            the error does not name it. They are decoded to see.
    """
    try:
        yield
    except tf.errors.OpError as error:
        sentence = decoding.failure(error)
        if isinstance(
            error, (tf.errors.NotFoundError, tf.errors.PermissionDeniedError)
        ):
            reason = error.message.split("\n")[0]
            sentence = f"An image file cannot be read. Received: {reason}"
        elif sentence is None and isinstance(error, tf.errors.InvalidArgumentError):
            sentence = decoding.failure_among(suspects())
        if sentence is None:
            raise
        raise DamagedImage(sentence) from error

"""Where exports are written, and how they fail: in one sentence, with nothing left."""

import contextlib
import os
import pathlib

import tensorflow as tf
from absl import logging


class VerificationError(Exception):
    """What was written does not compute what the model computes."""


def check_directory(path):
    """The absolute path; ValueError unless its directory can be written to."""
    path = pathlib.Path(path).absolute()
    if not path.name or not path.parent.is_dir():
        raise ValueError(
            f"The output must be in a directory that exists. Received: {path}"
        )
    if not os.access(path.parent, os.W_OK):
        raise ValueError(
            f"The output must be in a directory that can be written. Received: {path}"
        )
    return path


def check_free(path, overwrite):
    """Raises ValueError if something is there that may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise ValueError(
            f"The output exists; choose another, or --overwrite. Received: {path}"
        )


def write_files(contents):
    """Writes files; none of them is there before all are written.

    Args:
        contents: {path: bytes}.
    """
    temporary = {p: p.with_name(f".{p.name}.{os.getpid()}.tmp") for p in contents}
    try:
        for path, data in contents.items():
            with open(temporary[path], "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def tensorflow(what):
    """Makes its errors, a full disk say, those of the system; and quiet otherwise.

    Args:
        what: what is being written, for the message.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.split("; ")[-1].split(" [Op:")[0]
        raise OSError(f"{what} cannot be written: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)

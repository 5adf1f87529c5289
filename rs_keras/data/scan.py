"""Which files are good: decided once, by decoding each of them whole.

What was found is kept in the user's cache directory, for each file with its size and
the time of its last change, so that only new and changed files are decoded again. A
scan that was interrupted goes on where it was.
"""

import concurrent.futures
import functools
import os

import tensorflow as tf
from absl import logging

from rs_keras import progress as progress_lib
from rs_keras.data import decoding
from rs_keras.data import folder
from rs_keras.data import headers
from rs_keras.data import scan_cache

# Larger files are not even read: no image within `decoding.MAXIMUM_PIXELS` needs more.
MAXIMUM_BYTES = 2**30
# Each may hold an image of `decoding.MAXIMUM_PIXELS`.
MAXIMUM_THREADS = 32
# Seconds at least between savings of what was found.
_SAVE = 30
_CHUNK = 512
# Names that say: I am an image, although not of a kind that is read.
_CLAIMS = (*folder.EXTENSIONS, ".jpe", ".jfif", ".tif", ".tiff", ".avif", ".heic")
_CLAIMS += (".heif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".tga", ".dib")
# What files of other kinds begin with, or have from the fifth byte on.
_OTHERS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"ftypavif": "AVIF",
    b"ftypheic": "HEIC",
    b"ftypmif1": "HEIC",
    b"%PDF": "PDF",
    b"version https://git-lfs": "a pointer of Git LFS, without the file",
}


def claims(path):
    """Whether a name says that the file is an image."""
    return path.lower().endswith(_CLAIMS)


def judge(directory, paths, *, on_bad_image="skip"):
    """Decodes every file that the cache does not know.

    Args:
        directory: the dataset's, under which the files are.
        paths: list of str.
        on_bad_image: "skip", or "error": stop at the first.

    Returns:
        {path: reason} of the files that are no good images.

    Raises:
        ValueError: a file whose name says that it is an image is none, and that is an
            error; or more than half of these files are bad.
    """
    bad = {}
    with scan_cache.Cache(directory, decoding.RULES) as cache:
        for path, reason in _verdicts(paths, cache):
            if reason is not None:
                bad[path] = reason
                if on_bad_image == "error" and claims(path):
                    raise ValueError(
                        "--on_bad_image=error wants every image to be good; "
                        f"{reason}. Received: {folder.printable(path)}"
                    )
    _refuse_most(directory, paths, bad)
    return bad


def _verdicts(paths, cache):
    """(path, reason or None) of each path, in order; decodes in parallel."""
    workers = min(_cores(), MAXIMUM_THREADS)
    progress = progress_lib.Progress("scan", len(paths), "files")
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            try:
                for found in pool.map(functools.partial(_verdict, cache), chunk):
                    progress.step()
                    yield found
            except BaseException:
                # Ctrl-C, say: what waits in the pool is not waited for.
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            cache.save_sometimes(_SAVE)


def _cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _verdict(cache, path):
    """(path, why it is no good image, or None), from the cache or by decoding."""
    try:
        state = os.stat(path)
    except OSError as error:
        return path, f"it cannot be read ({error.strerror})"
    known, reason = cache.get(path, state)
    if not known:
        reason, lasting = examine(path)
        if lasting:
            cache.put(path, state, reason)
    return path, reason


def examine(path):
    """Decodes a file whole, as training does.

    Returns:
        (reason, lasting): why the file is no good image, a sentence without its end, or
        None; and whether that will be so until the file is written again.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"it cannot be read ({error.strerror})", False
    if not head:
        return "it is empty", True
    kinds = [kind for kind, magic in headers.MAGIC.items() if head.startswith(magic)]
    if not kinds or (kinds == ["WebP"] and head[8:12] != b"WEBP"):
        found = [o for m, o in _OTHERS.items() if head.startswith(m) or m == head[4:12]]
        if found:
            return f"it is no image of a kind that is read, but {found[0]}", True
        return "it is no image of a kind that is read", True
    if size > MAXIMUM_BYTES:
        return f"it has more than {MAXIMUM_BYTES // 2**30} GiB", True
    try:
        pixels = int(_pixels(os.fsencode(path)))
    except (tf.errors.NotFoundError, tf.errors.PermissionDeniedError) as error:
        return f"it cannot be read ({type(error).__name__})", False
    except tf.errors.InvalidArgumentError as error:
        if decoding.TOO_LARGE in error.message:
            return f"it claims more than {decoding.MAXIMUM_PIXELS:,} pixels", True
        return f"it is damaged, or a {kinds[0]} of a kind that is not read", True
    except tf.errors.OpError as error:  # a bad sector, a drive that is gone, …
        return f"it cannot be read ({type(error).__name__})", False
    return (None if pixels else "it has no pixels"), True


def skipped(paths):
    """[(path, reason)] of files that could not be used, with a warning for each."""
    found = [(str(path), examine(path)[0] or "it could not be read") for path in paths]
    for path, reason in found:
        logging.warning("%s is skipped: %s.", folder.printable(path), reason)
    return found


def listed(*skipped):
    """What JSON files say of skipped images.

    Args:
        *skipped: sequences of (path, reason).

    Returns:
        List of {"file", "reason"}, sorted.
    """
    return [
        {"file": as_text(path), "reason": why}
        for path, why in sorted({pair for pairs in skipped for pair in pairs})
    ]


def as_text(path):
    """A path for a JSON file: bytes that are not UTF-8 become escape sequences."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _pixels(path):
    # The number alone: the image never becomes an array.
    return tf.size(decoding.decode(tf.io.read_file(path)))


def _refuse_most(directory, paths, bad):
    broken = [path for path in paths if path in bad and claims(path)]
    number = sum(claims(path) or path not in bad for path in paths)
    if 2 * len(broken) > number:
        raise ValueError(
            "More than half of the images cannot be used; are they whole, and of the "
            f"kinds {', '.join(headers.MAGIC)}? Received: {len(broken)} of {number} in "
            f"{folder.printable(directory)}; {folder.printable(broken[0])}: "
            f"{bad[broken[0]]}"
        )

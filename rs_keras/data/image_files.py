"""Images of a user's own, for prediction: found, and read in their order."""

import os
import pathlib

import tensorflow as tf

from rs_keras import resolutions as resolutions_lib
from rs_keras.data import decoding
from rs_keras.data import folder
from rs_keras.data import multi_resolution
from rs_keras.data import pipeline
from rs_keras.data import transforms

FITS = ("crop", "squash")


def list_images(path):
    """The image files of a directory and of those in it, or one file.

    Args:
        path: directory or file, with a name in `folder.EXTENSIONS`.

    Returns:
        Sorted list of `pathlib.Path`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the directory holds no image, or the file is none.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"Images must be an existing file or directory. Received: {path}"
        )
    if not path.is_dir():
        if not folder.is_image(path.name):
            raise ValueError(
                f"An image file must end in {folder.allowed()}. Received: {path}"
            )
        return [path]
    found = [
        p
        for p in path.rglob("*")
        if folder.is_image(p.name)
        and p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(path).parts)
    ]
    if not found:
        raise ValueError(
            f"A directory of images must hold files ending in {folder.allowed()}, also "
            f"in directories of its own. Received: {path}"
        )
    return sorted(found)


def files_dataset(paths, resolution, *, batch_size, fit="crop"):
    """Images for prediction, in the given order.

    Args:
        paths: image files.
        resolution: r, int.
        batch_size: N, images a batch; the last batch may be smaller.
        fit: "crop" (the validation transform) or "squash" (r x r whatever the
            proportion). Images that are r x r are taken as they are.

    Returns:
        tf.data.Dataset of images (N, r, r, 3) uint8.
    """
    dataset = _files(paths, resolution, fit).map(lambda position, image: image)
    pipeline.check_batch_size(batch_size)
    return pipeline.finish(dataset.batch(batch_size))


def good_files_dataset(paths, resolution, *, batch_size, fit="crop"):
    """As `files_dataset`, without files that cannot be decoded.

    Returns:
        tf.data.Dataset of (positions in `paths` (N,) int64, images (N, r, r, 3) uint8).
    """
    dataset = _files(paths, resolution, fit).ignore_errors(log_warning=False)
    pipeline.check_batch_size(batch_size)
    return pipeline.finish(dataset.batch(batch_size))


def _files(paths, resolution, fit):
    """(position, image (r, r, 3) uint8) of each file."""
    (resolution,) = resolutions_lib.check_resolutions((resolution,))
    multi_resolution.check_mode("fit", fit, FITS)
    names = [os.fsencode(path) for path in paths]
    if not names:
        raise ValueError(f"At least one image is needed. Received: paths={names}")
    transform = transforms.validation if fit == "crop" else transforms.squash

    def load(position, name):
        image = decoding.attempt(decoding.decode, tf.io.read_file(name), name)
        return position, transform(image, resolution)

    return pipeline.parallel(
        tf.data.Dataset.from_tensor_slices(names).enumerate(), load
    )

"""Some images of a dataset or of a directory, at several resolutions, as arrays."""

import dataclasses

import numpy as np

from rs_keras.data import image_files
from rs_keras.data import pipeline
from rs_keras.data import scan


def of_source(source, resolutions, count, *, preprocessing="rsnet", largest=None):
    """Images of one split, as validation sees them.

    Args:
        source: `sources.Source`.
        resolutions: distinct positive ints, pixels.
        count: how many at most; they are spread over the whole split.
        preprocessing, largest: as for `pipeline.val_dataset`.

    Returns:
        {r: uint8 (N, r, r, 3)}.
    """
    step = -(-source.num_examples // count)
    some = dataclasses.replace(
        source,
        num_examples=-(-source.num_examples // step),
        order=lambda *which: source.order(*which).shard(step, 0),
    )
    dataset = pipeline.val_dataset(
        some, resolutions, batch_size=16, preprocessing=preprocessing, largest=largest
    )
    batches = [images for images, _ in dataset]
    return {r: np.concatenate([b[r].numpy() for b in batches]) for r in resolutions}


def of_directory(path, resolutions, count):
    """Images of a directory, as `predict` sees them.

    Files that cannot be decoded are left out, with a warning for each.

    Args and returns: as `of_source`; path: a directory, or an image.
    """
    paths = image_files.list_images(path)
    paths = paths[:: -(-len(paths) // count)]
    found, good = {}, None
    for r in resolutions:
        batches = list(image_files.good_files_dataset(paths, r, batch_size=16))
        good = {int(position) for positions, _ in batches for position in positions}
        if not good:
            raise ValueError(
                f"At least one image must be good. Received: {path}, of which none of "
                f"{len(paths)} could be decoded"
            )
        found[r] = np.concatenate([images.numpy() for _, images in batches])
    scan.skipped([path for i, path in enumerate(paths) if i not in good])
    return found

"""The images of a finished run, as its flags say."""

import functools

from rs_keras.data import calibration
from rs_keras.data import pipeline
from rs_keras.data import sources

# What calibration measures where nothing else is asked for.
CALIBRATION_IMAGES = 1000


def open_source(workdir, split):
    """The `sources.Source` of a run's own "train" or "val"."""
    scan = workdir.flag("scan", "on")
    return sources.open_source(workdir.flag("dataset"), split, scan=scan)


def check_classes(model, source):
    """Raises ValueError unless a dataset has the classes of a network."""
    if model.class_names and tuple(source.class_names) != tuple(model.class_names):
        raise ValueError(
            f"The dataset must have the classes of the network: "
            f"{_some(model.class_names)}. Received: {_some(source.class_names)}"
        )


def _some(names):
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def val_dataset(workdir, source, resolutions, **options):
    """`pipeline.val_dataset`, prepared as in the run."""
    preprocessing = workdir.flag("preprocessing", "rsnet")
    return pipeline.val_dataset(
        source, resolutions, preprocessing=preprocessing, **options
    )


def calibration_images(workdir, source, number, batch_size, largest):
    """The training images of a run that calibration measures.

    Args:
        workdir: of the run.
        source: `sources.Source` of its training images.
        number: how many; None for `CALIBRATION_IMAGES`, or all where there are fewer.
        batch_size: N, images a batch.
        largest: the largest trained resolution.

    Returns:
        (function of a resolution, returning `calibration.batches`; function returning
        the names of the images).

    Raises:
        ValueError: there are fewer images.
    """
    number = number or min(CALIBRATION_IMAGES, source.num_examples)
    if number > source.num_examples:
        raise ValueError(
            f"--calibration_images must be at most the {source.num_examples} training "
            f"images of the dataset. Received: --calibration_images={number}"
        )
    seed = int(workdir.flag("seed", "0"))
    official = workdir.flag("preprocessing", "rsnet") == "official_quant"
    load = functools.partial(
        calibration.batches,
        source,
        number=number,
        batch_size=batch_size,
        seed=seed,
        area=tuple(map(float, workdir.flag("area", "0.08,1").split(","))),
        picked_from=largest if official else None,
    )
    return load, functools.partial(calibration.names, source, number, seed)

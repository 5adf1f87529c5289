"""Images of a resolution of one's choice, prepared as in training."""

from rs_keras.data import pipeline


def batches(source, resolution, *, number, batch_size, seed, area, picked_from=None):
    """The first images of a run, cropped, resized and flipped as in training.

    Args:
        source: `sources.Source` of the training images.
        resolution: r, pixels.
        number: how many images; at most all.
        batch_size: N, images a batch.
        seed, area: as of `pipeline.train_dataset`.
        picked_from: with --preprocessing=official_quant, the largest resolution, from
            whose images it picks the pixels of others.

    Yields:
        uint8 arrays (N, r, r, 3); the last may be smaller.
    """
    dataset = pipeline.train_dataset(
        source,
        {resolution, picked_from or resolution},
        batch_size=1,
        epochs=1,
        seed=seed,
        area=area,
        preprocessing="official_quant" if picked_from else "rsnet",
    )
    dataset = dataset.take(number).rebatch(batch_size)
    for images, _ in dataset.as_numpy_iterator():
        yield images[resolution]


def names(source, number, seed):
    """What the images are called."""
    options = {"batch_size": number, "seed": seed, "epoch": 0, "step": 0}
    return pipeline.images_of_step(source, **options)

"""Batches for training, validation and prediction."""

import functools
import os

import tensorflow as tf

from rs_keras import resolutions as resolutions_lib
from rs_keras.data import decoding
from rs_keras.data import multi_resolution
from rs_keras.data import official_quant
from rs_keras.data import transforms

PREPROCESSINGS = ("rsnet", "official_quant")
# Images that are tried in place of one that is damaged, where none was scanned before.
MAXIMUM_ATTEMPTS = 100


def train_dataset(
    source,
    resolutions,
    *,
    batch_size,
    epochs,
    seed,
    start=(0, 0),
    shard=(0, 1),
    shard_batch=None,
    service=None,
    crops="shared",
    flip="per_resolution",
    views=1,
    area=(0.08, 1.0),
    resize="exact",
    preprocessing="rsnet",
):
    """All batches of a run, epoch after epoch, as one dataset.

    One dataset and not one per epoch, so that loading goes on over the boundaries. It
    has `steps_per_epoch` batches an epoch. Every random choice follows from (seed,
    epoch, index of the image): a run that starts later sees what the whole run saw
    there.

    The last, incomplete batch of an epoch is dropped, against the reference: shapes
    stay static for XLA, and a batch of a handful of images would spoil the moving
    statistics. The order differs between epochs, so no image is left out for good.

    Args:
        source: `sources.Source`.
        resolutions: distinct positive ints, pixels.
        batch_size: N, images a batch.
        epochs: number of the run's epochs, counted from 0.
        seed: int.
        start: (epochs, steps of the next one) that are left out.
        shard: (worker, workers): of each batch only this worker's consecutive part.
        shard_batch: images a batch of that part, which then comes as several; default:
            as one.
        service: address of a tf.data service that loads the batches, "grpc://host:port",
            or None. Its workers take turns: batches then come in no certain order.
        crops: "shared" (one crop for all resolutions) or "per_resolution".
        flip: "per_resolution" or "shared".
        views: how often a single resolution is repeated (RS-Nets, Table 6).
        area: (smallest, largest) share of the image's area that a crop keeps.
        resize: "exact", "chained" or "device"; see `multi_resolution.train_images`.
        preprocessing: "rsnet" (the paper's), or "official_quant" (see the module of
            that name; it has its own crops and flips).

    Returns:
        tf.data.Dataset of ({key: (N, r, r, 3) uint8}, labels (N,) int32), with the keys
        of `resolutions.branch_keys`; with resize="device" those of
        `MultiResolutionTrainer.branches`.

    Raises:
        ValueError: an argument breaks these rules.
        tf.errors.InvalidArgumentError: while it is read, for a damaged file; within
            `damage.damaged_images` it becomes a sentence that names the file, which
            has to be among the suspects there if the source was scanned.
    """
    branches = _branches(resolutions, views)
    multi_resolution.check_mode("crops", crops, multi_resolution.CROPS)
    multi_resolution.check_mode("flip", flip, multi_resolution.FLIPS)
    multi_resolution.check_mode("preprocessing", preprocessing, PREPROCESSINGS)
    _check_area(area)
    multi_resolution.check_mode("resize", resize, multi_resolution.RESIZES)
    if resize != "exact" and (crops, preprocessing) != ("shared", "rsnet"):
        raise ValueError(
            f"`resize={resize!r}` needs shared crops, preprocessed as the paper does. "
            f"Received: crops={crops!r}, preprocessing={preprocessing!r}"
        )
    if preprocessing == "official_quant":
        make_images = functools.partial(official_quant.train_images, area=area)
    else:
        make_images = functools.partial(
            multi_resolution.train_images,
            crops=crops,
            flip=flip,
            area=area,
            resize=resize,
        )
    steps = steps_per_epoch(source, batch_size)

    first_epoch, first_step = start
    worker, workers = shard
    part = batch_size // workers
    shard_batch = shard_batch or part

    def mine(position, *_):
        return position % batch_size // part == worker

    def examples(epoch):
        skipped = tf.where(epoch == first_epoch, first_step * batch_size, 0)
        skipped = tf.cast(skipped, tf.int64)
        dataset = source.examples(seed, epoch, skipped)
        dataset = dataset.take(steps * batch_size - skipped)
        if workers > 1:
            # Before anything is loaded: the examples of others cost an index each.
            dataset = dataset.enumerate().filter(mine).map(lambda _, found: found)
        return dataset.map(lambda *example: (epoch, *example))

    def load(epoch, *example):
        def make(index, item, label):
            image, name = source.load(index, item)
            key = transforms.fold_seed(seed, epoch, index)
            # To put a name into an error costs as much as half of the decoding: not
            # where images are known to be good, or another one takes their place.
            named = source.at is None and not source.scanned
            images = make_images(image, name if named else None, branches, key)
            return images, decoding.checked_label(label, source.class_names, name)

        return _or_next(source, make, *example)

    if service is None:
        dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(examples)
    else:
        first = (first_epoch * steps + first_step) * batch_size
        dataset = _endless(source, seed, steps * batch_size, first, mine)
    dataset = parallel(dataset, load).batch(shard_batch, drop_remainder=True)
    if service is not None:
        return finish(_loaded_by(service, dataset))
    total = max((epochs - first_epoch) * steps - first_step, 0) * part // shard_batch
    return finish(dataset.apply(tf.data.experimental.assert_cardinality(total)))


def _loaded_by(service, dataset):
    """The dataset as a tf.data service makes it, whose dicts have no ints as keys."""
    keys = tuple(dataset.element_spec[0])
    dataset = dataset.map(lambda images, y: (tuple(images[key] for key in keys), y))
    mode = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    dataset = dataset.apply(tf.data.experimental.service.distribute(mode, service))
    return dataset.map(lambda images, y: (dict(zip(keys, images, strict=True)), y))


def _endless(source, seed, number, first, mine):
    """(epoch, index, item, label) from a position on, `number` of them an epoch.

    Those of which `mine(position)` is true.

    One range of positions, which a tf.data service can deal out; endless, because its
    workers may drop the rest of a batch.
    """
    if source.pick is None:
        raise ValueError(
            "A tf.data service needs examples that can be reached in any order, as of "
            f"`folder:DIR`. Received: {source.name}"
        )

    def example(position):
        epoch = position // number
        return epoch, *source.pick(seed, epoch, position % number)

    return tf.data.Dataset.range(first, tf.int64.max).filter(mine).map(example)


def images_of_step(source, *, batch_size, seed, epoch, step):
    """The names of the images of a training step, `step` counted from 0 in its epoch.

    Returns:
        List of str: paths, or "image 7 of shapes" where images have no names.
    """
    examples = source.examples(seed, epoch, step * batch_size).take(batch_size)
    return _names(source, examples)


def _names(source, examples):
    def name(index, item, label):
        found = source.load(index, item)[1]
        unnamed = tf.strings.format(f"image {{}} of {source.name}", index)
        return tf.where(found == "", unnamed, found)

    return [os.fsdecode(x) for x in examples.map(name).as_numpy_iterator()]


def names(source):
    """The names of all images of a source, in the order of `val_dataset`."""
    return _names(source, source.examples())


def steps_per_epoch(source, batch_size):
    """Whole batches in an epoch; ValueError where there is not even one."""
    check_batch_size(batch_size)
    if batch_size > source.num_examples:
        raise ValueError(
            "`batch_size` must be at most the number of training images, "
            f"{source.num_examples}. Received: batch_size={batch_size}"
        )
    return source.num_examples // batch_size


def val_dataset(
    source, resolutions, *, batch_size, views=1, preprocessing="rsnet", largest=None
):
    """Every validation image once, in order; the last batch may be smaller.

    Args:
        source: `sources.Source`.
        resolutions, views: as for `train_dataset`.
        batch_size: N, images a batch.
        preprocessing: as for `train_dataset`.
        largest: the largest trained resolution, where others are tested; only
            "official_quant" asks.

    Returns:
        tf.data.Dataset of ({key: (N, r, r, 3) uint8}, labels (N,) int32).
    """
    branches = _branches(resolutions, views)
    check_batch_size(batch_size)
    make_images = multi_resolution.validation_images
    if preprocessing == "official_quant":
        base = largest or max(branches.values())
        make_images = functools.partial(official_quant.validation_images, base=base)

    def make(index, item, label):
        image, name = source.load(index, item)
        label = decoding.checked_label(label, source.class_names, name)
        return make_images(image, name, branches), label

    def load(*example):
        return _or_next(source, make, *example)

    dataset = parallel(source.examples(), load).batch(batch_size)
    total = -(-source.num_examples // batch_size)
    return finish(dataset.apply(tf.data.experimental.assert_cardinality(total)))


def _branches(resolutions, views):
    resolutions = resolutions_lib.check_resolutions(resolutions, views=views)
    keys = resolutions_lib.branch_keys(resolutions, views)
    sides = resolutions if views == 1 else resolutions * views
    return dict(zip(keys, sides, strict=True))


def _or_next(source, make, index, item, label):
    """`make` of an example, or of the next good one where the source allows that.

    The index of the one that is taken decides its label and its random choices.
    """
    if source.at is None:
        return make(index, item, label)
    attempts = min(source.num_examples, MAXIMUM_ATTEMPTS)
    return decoding.first_good(lambda k: make(*source.at(index + k)), attempts, item)


def parallel(dataset, load):
    """`dataset.map`, on all cores and in order."""
    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def finish(dataset):
    """The dataset, loaded ahead of its use."""
    options = tf.data.Options()
    # Under tf.distribute each replica takes its share of the examples: there are no
    # files at the root of this pipeline that could be shared out instead.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def check_batch_size(batch_size):
    """Raises ValueError unless it is a positive integer."""
    if not resolutions_lib.is_integer(batch_size) or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size}"
        )


def _check_area(area):
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        raise ValueError(
            "`area` must be two shares of the image's area, 0 < smallest <= largest "
            f"<= 1. Received: area={area}"
        )

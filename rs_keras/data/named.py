"""Datasets of TensorFlow Datasets, by name."""

import collections.abc
import dataclasses

import tensorflow as tf

from rs_keras.data import transforms

# Encoded images, about 110 kB each in ImageNet. The examples of a tfds file are in
# random order already, so the buffer need not hold a large part of them.
SHUFFLE_BUFFER = 4096
_SPLITS = {"train": ("train",), "val": ("validation", "test")}
_OWN_SPLIT = {"train": "train[:90%]", "val": "train[90%:]"}


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: a title, its size and classes, and `sources.Source.order`."""

    title: str
    num_examples: int
    class_names: tuple
    order: collections.abc.Callable


def open_split(name, split, *, data_dir=None):
    """Opens a classification set; it is downloaded first where tfds can do that.

    Validation is the split "validation" or else "test"; in a set that has neither, the
    last tenth of "train".

    Args:
        name: of the set, as for `tfds.builder`.
        split: "train" or "val".
        data_dir: where tfds keeps its data; None for its default.

    Raises:
        ValueError: the set is unknown, cannot be had, or is not for classification.
    """
    # Imported here: it takes seconds, and only this function needs it.
    import tensorflow_datasets as tfds

    builder = _builder(tfds, name, data_dir)
    class_names = _class_names(tfds, name, builder)
    _prepare(tfds, name, builder)
    which = _split_name(name, builder, split)
    dataset = _read(tfds, builder, which)
    if split == "val":
        _refuse_unlabelled(name, which, dataset)

    def order(seed, epoch, start):
        examples = dataset.enumerate().map(
            lambda i, example: (
                i,
                example["image"],
                tf.cast(example["label"], tf.int32),
            )
        )
        if epoch is not None:
            examples = _shuffle(examples, seed, epoch)
        return examples.skip(start)

    size = int(dataset.cardinality())
    return Split(f"{which} of tfds:{name}", size, class_names, order)


def _builder(tfds, name, data_dir):
    try:
        return tfds.builder(name, data_dir=data_dir)
    # Of the unknown name, or of a known name's unknown configuration.
    except ValueError as error:
        hints = [x for x in str(error).split("\n") if x.startswith("Did you mean")]
        hint = hints[0].rpartition("->")[2].strip(" ?") if hints else ""
        raise ValueError(
            "`tfds:NAME` must name a dataset of tensorflow_datasets"
            + (f"; did you mean {hint}?" if hint else ".")
            + f" Received: tfds:{name}"
        ) from error


def _class_names(tfds, name, builder):
    features = builder.info.features
    known = features if isinstance(features, tfds.features.FeaturesDict) else {}
    if not (
        "image" in known
        and isinstance(known["image"], tfds.features.Image)
        and "label" in known
        and isinstance(known["label"], tfds.features.ClassLabel)
    ):
        raise ValueError(
            "`tfds:NAME` must be a classification set, with an `image` and a `label` "
            f"that is a class. Received: tfds:{name}, with the features "
            f"{', '.join(known)}"
        )
    return tuple(known["label"].names)


def _prepare(tfds, name, builder):
    try:
        builder.download_and_prepare()
    # Whatever keeps tfds from it: no network, a manual download, a full disk.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"tensorflow_datasets could not prepare the set ({reason}). "
            f"Received: tfds:{name}"
        ) from error


def _split_name(name, builder, split):
    splits = builder.info.splits
    # Without sizes, as under tfds.testing.mock_data, the first name is tried.
    for candidate in _SPLITS[split]:
        if candidate in splits or not splits:
            if split == "train" and splits and not set(splits) & set(_SPLITS["val"]):
                return _OWN_SPLIT["train"]
            return candidate
    if "train" not in splits:
        raise ValueError(
            "`tfds:NAME` must have a split called train. "
            f"Received: tfds:{name}, with the splits {', '.join(splits)}"
        )
    return _OWN_SPLIT[split]


def _read(tfds, builder, which):
    """{"image": bytes, "label"} in the order of the files."""
    return builder.as_dataset(
        split=which,
        shuffle_files=False,
        # A cache complains where an epoch ends before the set does.
        read_config=tfds.ReadConfig(try_autocache=False),
        # Crops are decoded later, one at a time, instead of whole images here.
        decoders=tfds.decode.PartialDecoding(
            {"image": True, "label": True},
            decoders={"image": tfds.decode.SkipDecoding()},
        ),
    )


def _refuse_unlabelled(name, which, dataset):
    for example in dataset.take(1):
        if int(example["label"]) < 0:
            raise ValueError(
                f"Validation needs labels; the split {which} has none. "
                f"Received: tfds:{name}"
            )


def _shuffle(dataset, seed, epoch):
    """A shuffle buffer whose order depends on (seed, epoch) alone.

    `Dataset.shuffle` mixes the process-wide seed in, hence the operation under it.
    """
    first, second = tf.unstack(transforms.fold_seed(seed, epoch))
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=SHUFFLE_BUFFER,
        seed=first,
        # two zeros would mean a random seed
        seed2=second + 1,
        output_types=[tf.int64, tf.string, tf.int32],
        output_shapes=[(), (), ()],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)

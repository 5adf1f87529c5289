"""Where examples come from: generated shapes, a folder of photographs, or tfds."""

import collections.abc
import dataclasses

import tensorflow as tf

from rs_keras.data import folder
from rs_keras.data import named
from rs_keras.data import shapes

_ALLOWED = "`dataset` must be shapes, folder:DIR or tfds:NAME"
SPLITS = ("train", "val")


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a dataset.

    Attributes:
        name: what to call it.
        num_examples: int.
        class_names: tuple of str; a label is a position in it.
        order: function (seed, epoch, start) -> tf.data.Dataset; see `examples`.
        load: function (index, item) -> (image, name), usable in a graph: the image is
            a scalar string, a file's bytes, or pixels (H, W, 3) uint8; `name` is a
            scalar string for error messages.
    """

    name: str
    num_examples: int
    class_names: tuple
    order: collections.abc.Callable
    load: collections.abc.Callable

    def examples(self, seed=0, epoch=None, start=0):
        """The examples of one epoch, not loaded yet.

        Args:
            seed: int.
            epoch: None for the order of the files, or an int or a scalar int64 tensor
                for an order that depends on (seed, epoch) alone.
            start: how many examples to leave out at the beginning; int or scalar int64
                tensor. Costs nothing, but for a set of tfds, which is read up to there.

        Returns:
            tf.data.Dataset of (index, item, label): the position in the order of the
            files (scalar int64), what `load` needs, and a scalar int32.
        """
        return self.order(seed, epoch, start)


def open_source(dataset, split, *, data_dir=None):
    """Opens a split of a dataset.

    Args:
        dataset: "shapes", "folder:DIR" or "tfds:NAME".
        split: "train" or "val".
        data_dir: where tfds keeps its data; None for its default.

    Raises:
        FileNotFoundError: the directory does not exist.
        ValueError: the name is unknown, or the dataset cannot be used.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be 'train' or 'val'. Received: split={split!r}")
    kind, _, name = str(dataset).partition(":")
    if dataset == "shapes":
        return _shapes(split)
    if kind == "folder" and name:
        return _folder(name, split)
    if kind == "tfds" and name:
        return _named(name, split, data_dir)
    raise ValueError(f"{_ALLOWED}. Received: dataset={dataset!r}")


def _shapes(split):
    images, labels = shapes.generate(split)
    images = tf.constant(images)

    def load(index, item):
        return tf.gather(images, item), tf.constant("")

    order = _random_access(tf.range(len(labels), dtype=tf.int64), labels)
    return Source("shapes", len(labels), shapes.CLASS_NAMES, order, load)


def _folder(directory, split):
    class_names, paths, labels = folder.find(directory, split)

    def load(index, item):
        return tf.io.read_file(item), item

    order = _random_access(paths, labels)
    return Source(f"folder:{directory}", len(paths), class_names, order, load)


def _named(name, split, data_dir):
    part = named.open_split(name, split, data_dir=data_dir)

    def load(index, item):
        return item, tf.strings.format(f"example {{}} of {part.title}", index)

    return Source(f"tfds:{name}", part.num_examples, part.class_names, part.order, load)


def _random_access(items, labels):
    """`Source.order` for examples that can be reached in any order."""
    items, labels = tf.constant(items), tf.constant(labels, tf.int32)
    number = len(labels)

    def order(seed, epoch, start):
        dataset = tf.data.Dataset.range(start, number)
        if epoch is not None:
            key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
            # A permutation computed index by index: no buffer to fill or to save.
            dataset = dataset.map(
                lambda i: tf.random.experimental.index_shuffle(i, key, number - 1)
            )
        return dataset.map(lambda i: (i, items[i], labels[i]))

    return order

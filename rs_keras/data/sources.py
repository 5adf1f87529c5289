"""Where examples come from: generated shapes, a folder of photographs, or tfds."""

import collections.abc
import dataclasses
import functools
import hashlib
import os

import tensorflow as tf

from rs_keras.data import folder
from rs_keras.data import multi_resolution
from rs_keras.data import named
from rs_keras.data import scan as scan_lib
from rs_keras.data import shapes

_ALLOWED = "`dataset` must be shapes, folder:DIR or tfds:NAME"
SPLITS = folder.SPLITS
SCANS = ("on", "off")
ON_BAD_IMAGE = ("skip", "error")


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
        skipped: tuple of (path in the dataset's directory, reason).
        at: None where an example that cannot be used is an error; or a function of an
            index, also beyond the last one, that returns (index, item, label) of the
            example there, counted on from the first one: the next ones replace it.
        pick: function (seed, epoch, position) -> (index, item, label) in a graph, the
            example at a position of `examples`; None where they come one after another.
        fingerprint: str that changes with the names and labels of the files.
        scanned: whether each example was found to be good.
    """

    name: str
    num_examples: int
    class_names: tuple
    order: collections.abc.Callable
    load: collections.abc.Callable
    skipped: tuple = ()
    at: collections.abc.Callable | None = None
    pick: collections.abc.Callable | None = None
    fingerprint: str = ""
    scanned: bool = False

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


def open_source(dataset, split, *, data_dir=None, scan="on", on_bad_image="skip"):
    """Opens a split of a dataset; arguments as for `open_splits`."""
    options = {"data_dir": data_dir, "scan": scan, "on_bad_image": on_bad_image}
    return open_splits(dataset, (split,), **options)[split]


def open_splits(
    dataset, splits=SPLITS, *, data_dir=None, scan="on", on_bad_image="skip"
):
    """Opens splits of a dataset.

    Args:
        dataset: "shapes", "folder:DIR" or "tfds:NAME".
        splits: which of "train" and "val".
        data_dir: where tfds keeps its data; None for its default.
        scan: of a folder, "on" to decode each file once before, and to leave out those
            that are no good images; "off" to go by their names, and to let the next
            good image take the place of a bad one whenever one is met.
        on_bad_image: with a scan, "skip", or "error": stop at the first bad image.

    Returns:
        {split: `Source`}.

    Raises:
        FileNotFoundError: the directory does not exist.
        ValueError: the name is unknown, or the dataset cannot be used.
    """
    for split in splits:
        if split not in SPLITS:
            raise ValueError(
                f"`split` must be 'train' or 'val'. Received: split={split!r}"
            )
    for name, value, allowed in (
        ("scan", scan, SCANS),
        ("on_bad_image", on_bad_image, ON_BAD_IMAGE),
    ):
        multi_resolution.check_mode(name, value, allowed)
    kind, _, name = str(dataset).partition(":")
    if dataset == "shapes":
        return {split: _shapes(split) for split in splits}
    if kind == "folder" and name:
        return _folder(name, splits, scan, on_bad_image)
    if kind == "tfds" and name:
        return {split: _named(name, split, data_dir) for split in splits}
    raise ValueError(f"{_ALLOWED}. Received: dataset={dataset!r}")


def _shapes(split):
    images, labels = shapes.generate(split)
    images = tf.constant(images)

    def load(index, item):
        return tf.gather(images, item), tf.constant("")

    order, pick, _ = _random_access(tf.range(len(labels), dtype=tf.int64), labels)
    classes = shapes.CLASS_NAMES
    return Source("shapes", len(labels), classes, order, load, pick=pick)


def _folder(directory, splits, scan, on_bad_image):
    judge = folder.by_name
    if scan == "on":
        judge = functools.partial(scan_lib.judge, on_bad_image=on_bad_image)
    found = folder.find(directory, splits, judge)

    def load(index, item):
        return tf.io.read_file(item), item

    def source(split):
        # Names of files are bytes, which need not be UTF-8.
        paths = [os.fsencode(path) for path in split.paths]
        order, pick, at = _random_access(paths, split.labels)
        return Source(
            name=f"folder:{directory}",
            num_examples=len(paths),
            class_names=split.class_names,
            order=order,
            load=load,
            pick=pick,
            skipped=split.skipped,
            at=at if scan == "off" else None,
            fingerprint=_fingerprint(directory, split),
            scanned=scan == "on",
        )

    return {split: source(found[split]) for split in splits}


def _fingerprint(directory, split):
    """The same wherever the directory lies."""
    start = folder.start_of_names(directory)
    names = [os.fsencode(path[start:]) for path in split.paths]
    text = b"\0".join([*names, str(split.labels).encode()])
    return hashlib.sha256(text).hexdigest()


def _named(name, split, data_dir):
    part = named.open_split(name, split, data_dir=data_dir)

    def load(index, item):
        return item, tf.strings.format(f"example {{}} of {part.title}", index)

    return Source(f"tfds:{name}", part.num_examples, part.class_names, part.order, load)


def _random_access(items, labels):
    """`Source.order`, `pick` and `at` of examples that can be reached in any order."""
    items, labels = tf.constant(items), tf.constant(labels, tf.int32)
    number = len(labels)

    def example(index):
        return index, items[index], labels[index]

    def pick(seed, epoch, position):
        key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
        # A permutation computed index by index: no buffer to fill or to save.
        return example(tf.random.experimental.index_shuffle(position, key, number - 1))

    def order(seed, epoch, start):
        positions = tf.data.Dataset.range(start, number)
        if epoch is None:
            return positions.map(example)
        return positions.map(lambda position: pick(seed, epoch, position))

    return order, pick, lambda index: example(index % number)

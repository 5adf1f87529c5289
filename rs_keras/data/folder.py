"""A directory of photographs: one directory a class, split or to be split."""

import collections
import hashlib
import os
import pathlib

from absl import logging

EXTENSIONS = (".jpg", ".jpeg", ".png")
_LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg"


def is_image(name):
    """True for the name of a file that counts as an image; hidden files do not."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def allowed():
    return f"{', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]}"


def find(directory, split):
    """The images of one split.

    Either the directory holds `train` and `val`, each with a directory per class, or
    it holds the directories of the classes; then a tenth of each class, chosen by a
    hash of the file's name, is for validation: more files do not move the others.

    Args:
        directory: path.
        split: "train" or "val".

    Returns:
        (class_names tuple of str, paths list of str, labels list of int), by class and
        then by name.

    Raises:
        FileNotFoundError: the directory does not exist.
        ValueError: it does not hold images in this layout.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(
            f"`folder:DIR` needs an existing directory. Received: {directory}"
        )
    parts = [part for part in ("train", "val") if _directories(root / part)]
    ignored = collections.Counter()
    if len(parts) == 2:
        tree = _split_tree(root, split, ignored)
    elif parts:
        missing = "val" if parts == ["train"] else "train"
        raise ValueError(
            f"`folder:DIR` must be {_LAYOUT}: a {parts[0]} without a {missing} that "
            f"holds directories of classes is neither. Received: {directory}"
        )
    else:
        tree = {name: part[split] for name, part in _own_split(root, ignored).items()}
    if ignored:
        logging.warning(
            "%d files in %s were ignored: images end in %s, these in %s.",
            ignored.total(),
            directory,
            allowed(),
            ", ".join(sorted(ignored)),
        )
    paths = [path for images in tree.values() for path in images]
    labels = [label for label, images in enumerate(tree.values()) for _ in images]
    return tuple(tree), paths, labels


def _split_tree(root, split, ignored):
    """{class: paths} of a directory that is split already; all classes of train."""
    train = _directories(root / "train")
    unknown = sorted(set(_directories(root / "val")) - set(train))
    if unknown:
        raise ValueError(
            "Every class in val must have a directory in train. "
            f"Received: {', '.join(unknown[:5])} only in {root / 'val'}"
        )
    empty = [name for name in train if not _images(root / "train" / name)]
    _refuse_empty(root / "train", empty)
    if not any(_images(root / "val" / name) for name in train):
        raise ValueError(
            f"val must hold at least one image. Received: {root / 'val'}, without any"
        )
    return {name: _images(root / split / name, ignored) for name in train}


def _own_split(root, ignored):
    """{class: {"train": paths, "val": paths}} of a directory of classes."""
    tree = {name: _images(root / name, ignored) for name in _directories(root)}
    if not tree:
        raise ValueError(
            f"`folder:DIR` must be {_LAYOUT}. Received: {root}, without directories "
            "of classes"
        )
    _refuse_empty(root, [name for name, images in tree.items() if not images])
    single = [name for name, images in tree.items() if len(images) == 1]
    if single:
        raise ValueError(
            "A class needs at least two images, one for validation. Received: one "
            f"image in {root / single[0]}"
        )
    return {name: _divide(images) for name, images in tree.items()}


def _divide(paths):
    """A tenth for validation; at least one path in each part."""
    ranked = sorted(paths, key=_hash)
    val = [path for path in ranked if _hash(path) < 0.1]
    val = val[: len(ranked) - 1] or ranked[:1]
    chosen = set(val)
    return {
        "train": [path for path in paths if path not in chosen],
        "val": [path for path in paths if path in chosen],
    }


def _hash(path):
    """A number in [0, 1) from a file's name, the same everywhere."""
    digest = hashlib.sha256(os.path.basename(path).encode("utf-8", "surrogateescape"))
    return int.from_bytes(digest.digest()[:8]) / 2**64


def _refuse_empty(parent, names):
    if names:
        raise ValueError(
            f"Every class needs images ending in {allowed()}. Received: none in "
            f"{parent / names[0]}"
        )


def _directories(parent):
    """Sorted names of the directories in a directory; none where there is none."""
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:
        return sorted(e.name for e in entries if _visible(e) and e.is_dir())


def _images(directory, ignored=None):
    """Sorted paths of the images in a directory; counts extensions of other files."""
    if not directory.is_dir():
        return []
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if not _visible(entry) or not entry.is_file():
                continue
            if is_image(entry.name):
                found.append(entry.path)
            elif ignored is not None:
                ignored[pathlib.Path(entry.name).suffix or "no extension"] += 1
    return sorted(found)


def _visible(entry):
    return not entry.name.startswith(".")

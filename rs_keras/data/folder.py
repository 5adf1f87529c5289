"""A directory of photographs: one directory a class, split or to be split."""

import dataclasses
import hashlib
import os
import pathlib

from absl import logging

SPLITS = ("train", "val")
# Names of the kinds that are read.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg"


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of one split, by class and then by name.

    Attributes:
        class_names: tuple of str.
        paths: list of str.
        labels: list of int, positions in `class_names`.
        skipped: tuple of (path in the directory, reason), sorted.
    """

    class_names: tuple
    paths: list
    labels: list
    skipped: tuple


def is_image(name):
    """True for the name of a file that counts as an image; hidden files do not."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def allowed():
    return f"{', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]}"


def printable(path):
    """A path for a line of text: what does not belong there as an escape sequence."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path)
    )


def by_name(root, paths):
    """{path: reason} of the files that are no images by their names."""
    return {
        path: f"its name does not end in {allowed()}"
        for path in paths
        if not is_image(os.path.basename(path))
    }


def start_of_names(directory):
    """Where the names of files in the directory begin in the paths of `find`."""
    root = str(pathlib.Path(directory))
    return 0 if root == "." else len(os.path.join(root, ""))


def find(directory, splits=SPLITS, judge=by_name):
    """The images of one split or of both, with a warning for each file passed over.

    Either the directory holds `train` and `val`, each with a directory per class, or
    it holds the directories of the classes; then a tenth of each class, chosen by a
    hash of the file's name, is for validation: more files do not move the others. A
    class has the files of the directories in its own, too. Hidden files, directories
    that are linked within a class, and what is no regular file are passed over.

    Args:
        directory: path.
        splits: which of "train" and "val" are wanted.
        judge: function (directory, paths) -> {path: reason} of the files that shall
            not be used. It is called once.

    Returns:
        {split: `Split`}.

    Raises:
        FileNotFoundError: the directory does not exist.
        ValueError: it does not hold images in this layout.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(
            f"`folder:DIR` needs an existing directory. Received: {directory}"
        )
    parts = [part for part in SPLITS if _directories(root / part)]
    if len(parts) == 1:
        missing = "val" if parts == ["train"] else "train"
        raise ValueError(
            f"`folder:DIR` must be {_LAYOUT}: a {parts[0]} without a {missing} that "
            f"holds directories of classes is neither. Received: {directory}"
        )
    read = _split_tree if parts else _own_split
    trees, skipped = read(root, splits, judge)
    found = {}
    for split in splits:
        tree, start = trees[split], start_of_names(directory)
        found[split] = Split(
            tuple(tree),
            [path for images in tree.values() for path in images],
            [label for label, images in enumerate(tree.values()) for _ in images],
            tuple(sorted((path[start:], why) for path, why in skipped[split].items())),
        )
        for path, why in found[split].skipped:
            path = printable(os.path.join(directory, path))
            logging.warning("%s is skipped: %s.", path, why)
    return found


def _split_tree(root, splits, judge):
    """{split: {class: paths}} and {split: {path: reason}} of a divided directory."""
    classes = _directories(root / "train")
    unknown = sorted(set(_directories(root / "val")) - set(classes))
    if unknown:
        raise ValueError(
            "Every class in val must have a directory in train. "
            f"Received: {', '.join(unknown[:5])} only in {root / 'val'}"
        )
    skipped = {split: {} for split in splits}
    trees = {
        split: {name: files(root / split / name, skipped[split]) for name in classes}
        for split in splits
    }
    bad = judge(str(root), [p for s in splits for f in trees[s].values() for p in f])
    for split in splits:
        for name, paths in trees[split].items():
            skipped[split] |= {path: bad[path] for path in paths if path in bad}
            trees[split][name] = [path for path in paths if path not in bad]
    if "train" in splits:
        _refuse_empty(root / "train", trees["train"])
    if "val" in splits and not any(trees["val"].values()):
        raise ValueError(
            f"val must hold at least one image. Received: {root / 'val'}, without any"
        )
    return trees, skipped


def _own_split(root, splits, judge):
    """As `_split_tree`, of a directory of classes that is divided here."""
    passed = {}
    tree = {name: files(root / name, passed) for name in _directories(root)}
    if not tree:
        raise ValueError(
            f"`folder:DIR` must be {_LAYOUT}. Received: {root}, without directories "
            "of classes"
        )
    bad = judge(str(root), [path for paths in tree.values() for path in paths])
    tree = {name: [p for p in paths if p not in bad] for name, paths in tree.items()}
    _refuse_empty(root, tree)
    single = [name for name, images in tree.items() if len(images) == 1]
    if single:
        raise ValueError(
            "A class needs at least two images, one for validation. Received: one "
            f"image in {root / single[0]}"
        )
    divided = {name: _divide(images) for name, images in tree.items()}
    trees = {s: {name: part[s] for name, part in divided.items()} for s in splits}
    skipped = {split: {} for split in splits}
    for path, why in (passed | bad).items():
        # Where it would have been.
        split = "val" if _hash(path) < 0.1 else "train"
        skipped.get(split, {})[path] = why
    return trees, skipped


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
    digest = hashlib.sha256(os.fsencode(os.path.basename(path)))
    return int.from_bytes(digest.digest()[:8]) / 2**64


def _refuse_empty(parent, tree):
    empty = [name for name, images in tree.items() if not images]
    if empty:
        raise ValueError(
            "Every class needs an image that can be used. Received: none in "
            f"{parent / empty[0]}"
        )


def _directories(parent):
    """Sorted names of the directories in a directory; none where there is none."""
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:
        return sorted(e.name for e in entries if _visible(e) and os.path.isdir(e.path))


def files(directory, passed):
    """Sorted paths of the files in a directory and those in it.

    Args:
        directory: path, which need not exist.
        passed: {path: reason}, to which what is no candidate is added.
    """
    found, waiting = [], [str(directory)] if directory.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if not _visible(entry):
                    passed[entry.path] = "it is hidden"
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                # Not the entry's own method, which fails on a link to itself.
                elif os.path.isfile(entry.path):
                    found.append(entry.path)
                elif os.path.isdir(entry.path):
                    # It may lead back to where it stands.
                    passed[entry.path] = "it is a link to a directory"
                elif entry.is_symlink():
                    passed[entry.path] = "it is a link that leads nowhere"
                else:
                    passed[entry.path] = "it is no regular file"
    return sorted(found)


def _visible(entry):
    return not entry.name.startswith(".")

import logging
import os
import socket

import pytest

from rs_keras.data import folder


def _make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def _find(root, split):
    found = folder.find(root, (split,))[split]
    return found.class_names, found.paths, found.labels


def _names(paths):
    return {path.rpartition("/")[2] for path in paths}


def test_train_and_val_directories_are_the_splits(tmp_path):
    root = _make(
        tmp_path,
        "train/b/2.JPG",
        "train/b/1.png",
        "train/a/1.jpeg",
        "train/a/.hidden.jpg",
        "train/a/deeper/9.jpg",
        "train/.git/1.jpg",
        "val/b/3.jpg",
    )
    classes, paths, labels = _find(root, "train")
    assert classes == ("a", "b")
    assert [p.removeprefix(str(root)) for p in paths] == [
        "/train/a/1.jpeg",
        "/train/a/deeper/9.jpg",
        "/train/b/1.png",
        "/train/b/2.JPG",
    ]
    assert labels == [0, 0, 1, 1]
    # Validation keeps train's classes, also those it has no image of.
    assert _find(root, "val")[0] == ("a", "b")
    assert _find(root, "val")[2] == [1]


def test_one_tree_gives_a_tenth_of_every_class_to_validation(tmp_path):
    root = _make(tmp_path, *(f"{c}/{i}.jpg" for c in "ab" for i in range(300)))
    _, train, _ = _find(root, "train")
    _, val, labels = _find(root, "val")
    assert len(train) + len(val) == 600 and not set(train) & set(val)
    for label in (0, 1):
        assert 15 <= labels.count(label) <= 45


def test_more_files_do_not_move_the_others(tmp_path):
    root = _make(tmp_path, *(f"a/{i}.jpg" for i in range(50)))
    before = _names(_find(root, "val")[1])
    _make(tmp_path, *(f"a/more{i}.jpg" for i in range(50)))
    after = _names(_find(root, "val")[1])
    assert before == {name for name in after if not name.startswith("more")}


@pytest.mark.parametrize("number", range(2, 9))
def test_every_class_keeps_an_image_in_each_part(tmp_path, number):
    root = _make(
        tmp_path, *(f"{c}/{c}{i}.jpg" for c in "abcdef" for i in range(number))
    )
    for split in ("train", "val"):
        assert set(_find(root, split)[2]) == set(range(6))


def test_each_file_that_is_passed_over_is_named(tmp_path, caplog, monkeypatch):
    names = ("a/1.jpg", "a/2.TXT", "a/.3.jpg", "a/.git/4.jpg", "a/b/5.WEBP")
    root = _make(tmp_path, *(f"train/{name}" for name in names), "val/a/1.jpg")
    os.mkfifo(root / "train" / "a" / "6.jpg")
    (root / "train" / "a" / "7.jpg").symlink_to(root / "nowhere")
    (root / "train" / "a" / "loop").symlink_to(root / "train")
    (root / "train" / "a" / "me").symlink_to(root / "train" / "a" / "me")
    (root / "train" / "a" / "8.jpg").symlink_to(root / "val" / "a" / "1.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)  # addresses are short
        listener.bind("train/a/9.jpg")
        with caplog.at_level(logging.WARNING, logger="absl"):
            found = folder.find(root, ("train",))["train"]
    assert _names(found.paths) == {"1.jpg", "5.WEBP", "8.jpg"}
    assert found.skipped == (
        ("train/a/.3.jpg", "it is hidden"),
        ("train/a/.git", "it is hidden"),
        (
            "train/a/2.TXT",
            "its name does not end in .jpg, .jpeg, .png, .bmp, .gif or .webp",
        ),
        ("train/a/6.jpg", "it is no regular file"),
        ("train/a/7.jpg", "it is a link that leads nowhere"),
        ("train/a/9.jpg", "it is no regular file"),
        ("train/a/loop", "it is a link to a directory"),
        ("train/a/me", "it is a link that leads nowhere"),
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}/{path} is skipped: {why}." for path, why in found.skipped
    ]


def test_every_skipped_file_of_one_tree_belongs_to_one_split(tmp_path):
    root = _make(tmp_path, *(f"a/{i}.jpg" for i in range(60)))
    found = folder.find(root, judge=lambda _, paths: dict.fromkeys(paths[:30], "bad"))
    skipped = [path for split in found.values() for path, _ in split.skipped]
    assert len(skipped) == len(set(skipped)) == 30
    assert all(split.skipped for split in found.values())
    assert sum(len(split.paths) for split in found.values()) == 30


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            (),
            "`folder:DIR` must be DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or "
            "DIR/CLASS/*.jpg. Received: {root}, without directories of classes",
        ),
        (
            ("train/a/1.jpg",),
            "`folder:DIR` must be DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or "
            "DIR/CLASS/*.jpg: a train without a val that holds directories of classes "
            "is neither. Received: {root}",
        ),
        (
            ("train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg"),
            "Every class in val must have a directory in train. Received: b only in "
            "{root}/val",
        ),
        (
            ("train/a/1.jpg", "train/b/1.txt", "val/a/1.jpg"),
            "Every class needs an image that can be used. Received: none in "
            "{root}/train/b",
        ),
        (
            ("train/a/1.jpg", "val/a/1.txt"),
            "val must hold at least one image. Received: {root}/val, without any",
        ),
        (
            ("a/1.jpg", "a/2.jpg", "b/1.txt"),
            "Every class needs an image that can be used. Received: none in {root}/b",
        ),
        (
            ("a/1.jpg", "a/2.jpg", "b/1.jpg"),
            "A class needs at least two images, one for validation. Received: one "
            "image in {root}/b",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, names, expected):
    _make(tmp_path, *names)
    for splits in (("train", "val"), ("val", "train")):
        with pytest.raises(ValueError) as error:
            folder.find(tmp_path, splits)
        assert str(error.value) == expected.format(root=tmp_path)


def test_a_missing_directory_is_not_found():
    with pytest.raises(FileNotFoundError) as error:
        folder.find("/nowhere/at/all")
    assert str(error.value) == (
        "`folder:DIR` needs an existing directory. Received: /nowhere/at/all"
    )

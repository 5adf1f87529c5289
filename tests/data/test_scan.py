"""A scan: what it keeps, what it remembers, and what it refuses."""

import json
import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from rs_keras import progress
from rs_keras.data import damage
from rs_keras.data import decoding
from rs_keras.data import image_files
from rs_keras.data import pipeline
from rs_keras.data import scan
from rs_keras.data import scan_cache
from rs_keras.data import sources
from tests.data import nasty


def jpeg(value=0, side=20):
    pixels = np.full((side, side, 3), value, np.uint8)
    return tf.io.encode_jpeg(pixels).numpy()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two classes of six good images each in one tree, and a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "set" / name / f"{i}.jpg").write_bytes(jpeg(40 * i))
    return tmp_path / "set"


@pytest.fixture
def examined(monkeypatch):
    """The files that are examined, in a list that grows."""
    found, examine = [], scan.examine

    def listen(path):
        found.append(path)
        return examine(path)

    monkeypatch.setattr(scan, "examine", listen)
    return found


def judge(root, **options):
    paths = sorted(str(path) for path in root.rglob("*") if path.is_file())
    return scan.judge(str(root), paths, **options)


def test_every_nasty_file_is_kept_or_skipped_as_the_manifest_expects():
    root, expected = nasty.files(), nasty.expectations()
    paths = [str(root / name) for name in expected if not name.startswith(".")]
    bad = scan.judge(str(root), paths)
    kept = {name for name in expected if str(root / name) not in bad}
    for name, what in expected.items():
        if what in nasty.KEPT:
            assert name in kept, bad[str(root / name)]
        # Hidden files never come here.
        elif what in nasty.SKIPPED and not name.startswith("."):
            assert name not in kept, name
    assert len(expected) == 119
    assert bad[str(root / "huge_16384x12288_flat.png")] == (
        "it claims more than 100,000,000 pixels"
    )
    assert bad[str(root / "jpeg_lying_dimensions_65000.jpg")] == (
        "it claims more than 100,000,000 pixels"
    )
    assert bad[str(root / "zero_byte.png")] == "it is empty"
    assert "TIFF" in bad[str(root / "tiff_lzw.tif")]
    # What the scan has kept is what training can read, crop by crop.
    dataset = image_files.files_dataset(
        [root / name for name in sorted(kept)], 8, batch_size=1
    )
    assert len(list(dataset)) == len(kept)


def test_bombs_are_refused_within_little_memory(fresh_python):
    names = ("huge_16384x12288_flat.png", "jpeg_lying_dimensions_65000.jpg")
    names += ("bmp_reallybig.bmp", "gif_decompression_bomb.gif", "png_broken.png")
    paths = [str(nasty.files() / name) for name in names]
    good = str(nasty.files() / "ok_baseline.jpg")
    grown = fresh_python(
        "import resource\n"
        "from rs_keras.data import scan\n"
        f"assert scan.examine({good!r})[0] is None\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        f"assert all(scan.examine(path)[0] for path in {paths!r})\n"
        "print(peak() - before)"
    )
    assert int(grown) < 50_000, f"{grown} KiB"


def test_a_second_scan_decodes_only_what_has_changed(root, examined):
    (root / "a" / "7.jpg").write_bytes(b"not an image")
    bad = judge(root)
    assert list(bad) == [str(root / "a" / "7.jpg")] and len(examined) == 13
    examined.clear()
    assert judge(root) == bad and examined == []
    (root / "a" / "7.jpg").write_bytes(jpeg())
    (root / "b" / "new.jpg").write_bytes(jpeg())
    os.utime(root / "a" / "0.jpg", (1, 1))
    assert judge(root) == {}
    assert sorted(examined) == [
        str(root / name) for name in ("a/0.jpg", "a/7.jpg", "b/new.jpg")
    ]
    # Another name of the same directory.
    examined.clear()
    (root.parent / "link").symlink_to(root)
    judge(root.parent / "link")
    assert examined == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"files": 3}', b"[" * 100_000]
)
def test_a_damaged_cache_is_ignored(root, examined, content):
    judge(root)
    (file,) = (root.parent / "cache" / "rs_keras" / "scans").iterdir()
    file.write_bytes(content)
    examined.clear()
    assert judge(root) == {} and len(examined) == 12
    # It is whole again.
    examined.clear()
    judge(root)
    assert examined == []
    value = json.loads(file.read_text())
    value["files"]["a/0.jpg"], value["files"]["b/0.jpg"] = 3, [1]
    file.write_text(json.dumps(value))
    judge(root)
    assert len(examined) == 2


def test_other_rules_scan_again(root, examined, monkeypatch):
    judge(root)
    examined.clear()
    monkeypatch.setattr(decoding, "RULES", "others")
    judge(root)
    assert len(examined) == 12


def test_a_cache_that_cannot_be_written_is_one_warning(root, monkeypatch, caplog):
    (root.parent / "cache").write_text("a file where a directory should be")
    monkeypatch.setattr(scan, "_SAVE", -1)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert judge(root) == {}
    assert [r.getMessage()[:34] for r in caplog.records] == [
        "What the scan found cannot be kept"
    ]


def test_a_scan_that_was_interrupted_goes_on_where_it_was(root, examined, monkeypatch):
    monkeypatch.setattr(scan, "_CHUNK", 4)
    listening = scan.examine

    def interrupted(path):
        if path.endswith("b/2.jpg"):
            raise KeyboardInterrupt
        return listening(path)

    monkeypatch.setattr(scan, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        judge(root)
    known = set(examined)
    assert len(known) >= 8
    monkeypatch.setattr(scan, "examine", listening)
    examined.clear()
    assert judge(root) == {}
    assert known | set(examined) == set(map(str, root.rglob("*.jpg")))
    assert not known & set(examined)


def test_progress_is_shown_with_an_end_in_sight(root, monkeypatch, capsys):
    monkeypatch.setattr(scan, "_CHUNK", 5)
    monkeypatch.setattr(progress, "EVERY", -1)
    judge(root)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [f"{i}/12" for i in range(1, 13)]
    assert all("/s  ETA 0:0" in line for line in lines)


def test_the_first_bad_image_stops_where_that_is_wanted(root):
    (root / "a" / "Thumbs.db").write_bytes(b"no image, and it does not say so")
    assert list(judge(root, on_bad_image="error")) == [str(root / "a" / "Thumbs.db")]
    for name in ("b/1.jpg", "a/3.jpg"):
        (root / name).write_bytes(b"")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ValueError) as error:
            judge(root, on_bad_image="error")
        assert str(error.value) == (
            "--on_bad_image=error wants every image to be good; it is empty. "
            f"Received: {root}/a/3.jpg"
        )


def test_a_set_that_is_mostly_bad_stops(root):
    (root / "a" / "notes.txt").write_bytes(b"is not counted")
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1", "b/2"):
        (root / f"{name}.jpg").write_bytes(b"<html>")
    assert len(judge(root)) == 7
    (root / "b" / "3.jpg").write_bytes(jpeg()[:-9])
    with pytest.raises(ValueError) as error:
        sources.open_splits(f"folder:{root}")
    assert str(error.value) == (
        "More than half of the images cannot be used; are they whole, and of the kinds "
        f"JPEG, PNG, GIF, BMP, WebP? Received: 7 of 12 in {root}; {root}/a/0.jpg: it "
        "is no image of a kind that is read"
    )


def test_a_class_without_a_good_image_is_named(root):
    for path in (root / "b").iterdir():
        path.write_bytes(jpeg()[:-9])
    with pytest.raises(ValueError) as error:
        sources.open_splits(f"folder:{root}")
    assert str(error.value) == (
        f"Every class needs an image that can be used. Received: none in {root}/b"
    )


def test_indices_count_good_images_only_in_every_opening(root, examined):
    (root / "a" / "2.jpg").write_bytes(jpeg()[:-9])
    (root / "b" / "photo").write_bytes(jpeg(255))
    splits = sources.open_splits(f"folder:{root}")
    assert sum(source.num_examples for source in splits.values()) == 12
    assert len(examined) == 13
    for name, source in splits.items():
        again = sources.open_source(f"folder:{root}", name)
        items = [(int(i), x.numpy(), int(y)) for i, x, y in source.examples()]
        assert items == [(int(i), x.numpy(), int(y)) for i, x, y in again.examples()]
        assert [i for i, _, _ in items] == list(range(source.num_examples))
        assert again.skipped == source.skipped
    assert len(examined) == 13
    found = scan.listed(*(source.skipped for source in splits.values()))
    assert found == [
        {
            "file": "a/2.jpg",
            "reason": "it is damaged, or a JPEG of a kind that is not read",
        }
    ]


def test_odd_names_are_read_and_listed(root, caplog):
    odd = ["new\nline.jpg", "ünïcode 图片.jpg", "a]b [c.jpg", b"byte\xff.jpg"]
    for i, name in enumerate(odd):
        name = os.fsencode(name)
        for label, data in ((b"a", jpeg(50 * i)), (b"b", b"")):
            with open(os.path.join(os.fsencode(root), label, name), "wb") as file:
                file.write(data)
    with caplog.at_level(logging.WARNING, logger="absl"):
        splits = sources.open_splits(f"folder:{root}")
    read = 0
    for source in splits.values():
        for images, _ in pipeline.val_dataset(source, (8,), batch_size=1):
            read += len(images[8])
    assert read == 16
    found = scan.listed(*(source.skipped for source in splits.values()))
    text = json.dumps(found).encode("utf-8")
    assert {row["file"] for row in json.loads(text)} == {
        "b/new\nline.jpg",
        "b/ünïcode 图片.jpg",
        "b/a]b [c.jpg",
        "b/byte\\xff.jpg",
    }
    said = sorted(record.getMessage() for record in caplog.records)
    assert len(said) == 4 and not any("\n" in line for line in said)
    # What goes bad later is named in one line, whatever its name.
    paths = [os.path.join(os.fsencode(root), b"a", os.fsencode(name)) for name in odd]
    for path in paths:
        with open(path, "wb"):
            pass
    for path in (paths[0], paths[3]):
        with pytest.raises(damage.DamagedImage), damage.damaged_images():
            list(image_files.files_dataset([os.fsdecode(path)], 8, batch_size=1))


def test_a_cache_home_that_is_relative_is_not_used(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", "/home/someone")
    assert scan_cache.cache_home() == "/home/someone/.cache"
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert scan_cache.cache_home() == "/there"

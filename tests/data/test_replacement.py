"""--scan=off: the next good image takes the place of a bad one, always the same one."""

import os

import numpy as np
import pytest
import tensorflow as tf

from rs_keras.data import damage
from rs_keras.data import multi_resolution
from rs_keras.data import pipeline
from rs_keras.data import sources
from rs_keras.data import transforms

# Of 12 images: two in a row, one that is missing, and the last one.
BAD = {2, 3, 7, 11}


@pytest.fixture
def photos(tmp_path):
    """Twelve images in two classes, four of them bad, and one for validation."""
    generator = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "train" / "ab"[i // 6] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (30, 40, 3)).astype(np.uint8)
        data = tf.io.encode_png(pixels).numpy()
        path.write_bytes(data[:200] if i in BAD - {7} else data)
    for name in ("1.png", "2.png"):
        (tmp_path / "val" / "b").mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / "b" / name).write_bytes(data[:200])
    return tmp_path


@pytest.fixture
def source(photos):
    source = sources.open_source(f"folder:{photos}", "train", scan="off")
    os.remove(photos / "train" / "b" / "07.png")
    return source


def batches(source, **options):
    options = {"batch_size": 4, "epochs": 3, "seed": 5, **options}
    return [
        (images[16].numpy(), labels.numpy())
        for images, labels in pipeline.train_dataset(source, (16,), **options)
    ]


def test_a_bad_image_is_replaced_by_the_next_good_one(source, capfd):
    assert source.num_examples == 12 and source.skipped == ()
    found = batches(source, epochs=1)
    order = [int(index) for index, _, _ in source.examples(5, 0)]
    assert sorted(order) == list(range(12))
    taken = [next(i % 12 for i in range(k, 24) if i % 12 not in BAD) for k in order]

    def make(index):
        index, item, label = source.at(index)
        image, name = source.load(index, item)
        key = transforms.fold_seed(5, 0, index)
        return multi_resolution.train_images(image, name, {16: 16}, key)[16], label

    expected = tf.data.Dataset.from_tensor_slices(taken).map(make).batch(4)
    for (images, labels), (x, y) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, x)
        np.testing.assert_array_equal(labels, y)
    said = [x for x in capfd.readouterr().err.splitlines() if x.startswith("warning")]
    assert sorted(line.split("/")[-1] for line in said) == [
        f"{i:02}.png is damaged; the next good image takes its place"
        for i in sorted(BAD)
    ]


def test_a_run_that_starts_later_sees_what_the_whole_run_saw(source):
    later = batches(source, epochs=2, start=(1, 0))
    for (x, y), (x2, y2) in zip(batches(source, epochs=2)[3:], later, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


def test_validation_replaces_too(source):
    (x, y), *_ = pipeline.val_dataset(source, (16,), batch_size=12)
    np.testing.assert_array_equal(x[16][2], x[16][4])
    np.testing.assert_array_equal(x[16][3], x[16][4])
    np.testing.assert_array_equal(x[16][7], x[16][8])
    np.testing.assert_array_equal(x[16][11], x[16][0])
    assert [int(label) for label in y] == [0] * 6 + [1] * 5 + [0]


def test_where_no_image_is_good_the_first_is_named(photos):
    source = sources.open_source(f"folder:{photos}", "val", scan="off")
    with pytest.raises(damage.DamagedImage) as error, damage.damaged_images():
        list(pipeline.val_dataset(source, (16,), batch_size=2))
    assert str(error.value).endswith(f"Received: {photos}/val/b/1.png")

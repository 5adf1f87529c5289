import numpy as np
import pytest
import tensorflow as tf

from rs_keras.data import shapes
from rs_keras.data import sources


@pytest.fixture
def small_shapes(monkeypatch):
    monkeypatch.setattr(shapes, "NUM_EXAMPLES", {"train": 30, "val": 15})


@pytest.fixture
def photos(tmp_path):
    for split in ("train", "val"):
        for name in ("b", "a"):
            for i in range(6):
                path = tmp_path / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((8, 9, 3), 10 * i, np.uint8)
                path.write_bytes(tf.io.encode_png(pixels).numpy())
    return tmp_path


def _indices(source, *args):
    return [int(index) for index, _, _ in source.examples(*args)]


def test_shapes_load_as_pixels_with_their_labels(small_shapes):
    source = sources.open_source("shapes", "train")
    images, labels = shapes.generate("train", 0, 30)
    assert (source.name, source.num_examples) == ("shapes", 30)
    assert source.class_names == shapes.CLASS_NAMES
    for index, item, label in source.examples(1, 2):
        image, _ = source.load(index, item)
        np.testing.assert_array_equal(image, images[index])
        assert int(label) == labels[index] and label.dtype == tf.int32


def test_a_folder_loads_bytes_named_by_their_path(photos):
    source = sources.open_source(f"folder:{photos}", "val")
    assert source.class_names == ("a", "b") and source.num_examples == 12
    index, item, label = list(source.examples())[7]
    image, name = source.load(index, item)
    assert name.numpy().decode() == f"{photos}/val/b/1.png"
    assert (int(index), int(label)) == (7, 1)
    np.testing.assert_array_equal(
        tf.io.decode_png(image), np.full((8, 9, 3), 10, np.uint8)
    )


@pytest.mark.parametrize("kind", ["shapes", "folder"])
def test_the_order_is_a_permutation_that_follows_from_seed_and_epoch(
    kind, small_shapes, photos
):
    dataset = kind if kind == "shapes" else f"folder:{photos}"
    source = sources.open_source(dataset, "train")
    everything = list(range(source.num_examples))
    assert _indices(source) == everything
    orders = [_indices(source, s, e) for s in (0, 1) for e in (0, 1)]
    for order in orders:
        assert order != everything and sorted(order) == everything
    assert len(set(map(tuple, orders))) == 4
    # Neither the process-wide seed nor a tensor in place of an int changes it.
    tf.random.set_seed(5)
    assert _indices(source, 1, tf.constant(1, tf.int64)) == orders[3]
    nested = tf.data.Dataset.range(2).flat_map(lambda e: source.examples(1, e))
    assert [int(i) for i, _, _ in nested] == orders[2] + orders[3]


@pytest.mark.parametrize(
    "dataset", ["", "shape", "folder", "folder:", "tfds:", "mnist", "shapes:1"]
)
def test_an_unknown_dataset_is_refused(dataset):
    with pytest.raises(ValueError) as error:
        sources.open_source(dataset, "train")
    assert str(error.value) == (
        "`dataset` must be shapes, folder:DIR or tfds:NAME. "
        f"Received: dataset={dataset!r}"
    )


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'train' or 'val'. Received: split='test'"):
        sources.open_source("shapes", "test")
    with pytest.raises(ValueError) as error:
        sources.open_source("shapes", "val", scan="maybe")
    assert str(error.value) == (
        "`scan` must be one of 'on', 'off'. Received: scan='maybe'"
    )

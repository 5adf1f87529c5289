import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from rs_keras.data import named
from rs_keras.data import pipeline
from rs_keras.data import sources

# tfds' own: its mock builds datasets from generators, the old way.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SPLITS = {"train": 40, "test": 8}


class TinySet(tfds.core.GeneratorBasedBuilder):
    """A set on disk; its splits are those of `SPLITS` when it is prepared."""

    VERSION = tfds.core.Version("1.0.0")
    labelled = True

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 1)),
                    "label": tfds.features.ClassLabel(names=["x", "y"]),
                }
            )
        )

    def _split_generators(self, dl_manager):
        return {name: self._examples(size) for name, size in SPLITS.items()}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, size):
        for i in range(size):
            label = i % 2 if self.labelled else -1
            yield i, {"image": np.full((12, 10, 1), i, np.uint8), "label": label}


def _open(split, path):
    return sources.open_source("tfds:tiny_set", split, data_dir=path)


def _indices(source, *args):
    return [int(i) for i, _, _ in source.examples(*args)]


@pytest.mark.parametrize("name", ["mnist", "imagenet2012"])
def test_named_sets_train_on_mock_data(name):
    with tfds.testing.mock_data(num_examples=10):
        source = sources.open_source(f"tfds:{name}", "train")
        assert source.num_examples == 10
        assert len(source.class_names) == {"mnist": 10, "imagenet2012": 1000}[name]
        batches = list(
            pipeline.train_dataset(source, (24, 16), batch_size=4, epochs=2, seed=0)
        )
        val = sources.open_source(f"tfds:{name}", "val")
        sizes = [
            len(labels) for _, labels in pipeline.val_dataset(val, (24,), batch_size=4)
        ]
    assert [x[24].shape for x, _ in batches] == [(4, 24, 24, 3)] * 4
    assert sizes == [4, 4, 2]


def test_a_set_on_disk_uses_its_test_split_and_grey_becomes_rgb(tmp_path):
    train, val = _open("train", tmp_path), _open("val", tmp_path)
    assert (train.num_examples, val.num_examples) == (40, 8)
    assert train.class_names == ("x", "y")
    images, labels = next(iter(pipeline.val_dataset(val, (8,), batch_size=8)))
    np.testing.assert_array_equal(images[8][..., 0], images[8][..., 2])
    # Every image is of one grey level, which its label goes with.
    np.testing.assert_array_equal(images[8][:, 0, 0, 0] % 2, labels)


def test_the_order_follows_from_seed_and_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "SHUFFLE_BUFFER", 16)
    source = _open("train", tmp_path)
    assert _indices(source) == list(range(40))
    first, second = _indices(source, 3, 0), _indices(source, 3, 1)
    assert sorted(first) == sorted(second) == list(range(40)) and first != second
    tf.random.set_seed(9)
    nested = tf.data.Dataset.range(2).flat_map(lambda e: source.examples(3, e))
    assert [int(i) for i, _, _ in nested] == first + second


def test_without_validation_the_last_tenth_of_train_is_kept(tmp_path, monkeypatch):
    monkeypatch.delitem(SPLITS, "test")
    train, val = _open("train", tmp_path), _open("val", tmp_path)
    assert (train.num_examples, val.num_examples) == (36, 4)
    grey = [
        {int(tf.io.decode_png(item)[0, 0, 0]) for _, item, _ in part.examples()}
        for part in (train, val)
    ]
    assert len(grey[0]) == 36 and len(grey[1]) == 4 and not grey[0] & grey[1]


def test_validation_without_labels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(TinySet, "labelled", False)
    with pytest.raises(ValueError) as error:
        _open("val", tmp_path)
    assert str(error.value) == (
        "Validation needs labels; the split test has none. Received: tfds:tiny_set"
    )


def test_damaged_examples_are_named(tmp_path):
    source = _open("train", tmp_path)
    assert source.load(tf.constant(7, tf.int64), b"")[1] == (
        b"example 7 of train of tfds:tiny_set"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cifar11",
            "`tfds:NAME` must name a dataset of tensorflow_datasets; did you mean "
            "cifar10_1? Received: tfds:cifar11",
        ),
        (
            "nosuchset",
            "`tfds:NAME` must name a dataset of tensorflow_datasets. "
            "Received: tfds:nosuchset",
        ),
        (
            "coco",
            "`tfds:NAME` must be a classification set, with an `image` and a `label` "
            "that is a class. Received: tfds:coco, with the features image, "
            "image/filename, image/id, objects",
        ),
        (
            "glue",
            "`tfds:NAME` must be a classification set, with an `image` and a `label` "
            "that is a class. Received: tfds:glue, with the features sentence, label, "
            "idx",
        ),
    ],
)
def test_sets_that_cannot_be_used_are_refused(name, expected):
    with tfds.testing.mock_data(num_examples=2):
        with pytest.raises(ValueError) as error:
            sources.open_source(f"tfds:{name}", "train")
    assert str(error.value) == expected

import numpy as np
import pytest
import tensorflow as tf

from rs_keras.data import damage
from rs_keras.data import decoding
from rs_keras.data import image_files
from rs_keras.data import multi_resolution
from rs_keras.data import pipeline
from rs_keras.data import shapes
from rs_keras.data import sources
from rs_keras.data import transforms


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr(shapes, "NUM_EXAMPLES", {"train": 22, "val": 22})
    return sources.open_source("shapes", "train")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            directory = tmp_path / split / name
            directory.mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (40, 30 + i, 3)).astype(np.uint8)
                encode = tf.io.encode_png if i % 2 else tf.io.encode_jpeg
                (directory / f"{i}.jpg").write_bytes(encode(pixels).numpy())
    return tmp_path


def _train(source, resolutions=(32, 24), **options):
    options = {"batch_size": 5, "epochs": 3, "seed": 1, **options}
    dataset = pipeline.train_dataset(source, resolutions, **options)
    return [
        ({key: value.numpy() for key, value in images.items()}, labels.numpy())
        for images, labels in dataset
    ]


def _equal(a, b):
    return len(a) == len(b) and all(
        np.array_equal(y1, y2) and all(np.array_equal(x1[k], x2[k]) for k in x1)
        for (x1, y1), (x2, y2) in zip(a, b, strict=True)
    )


def test_batches_have_static_shapes_and_a_known_number(source):
    dataset = pipeline.train_dataset(source, (24, 32), batch_size=5, epochs=3, seed=0)
    images, labels = dataset.element_spec
    assert {k: tuple(v.shape) for k, v in images.items()} == {
        32: (5, 32, 32, 3),
        24: (5, 24, 24, 3),
    }
    assert images[32].dtype == tf.uint8
    assert tuple(labels.shape) == (5,) and labels.dtype == tf.int32
    assert int(dataset.cardinality()) == len(list(dataset)) == 12
    assert pipeline.steps_per_epoch(source, 5) == 4


@pytest.mark.parametrize("kind", ["shapes", "folder"])
def test_two_passes_are_bit_identical(source, photos, kind):
    if kind == "folder":
        source = sources.open_source(f"folder:{photos}", "train")
    dataset = pipeline.train_dataset(source, (32, 24), batch_size=5, epochs=2, seed=1)
    first = [(x[32].numpy(), y.numpy()) for x, y in dataset]
    again = [(x[32].numpy(), y.numpy()) for x, y in dataset]
    for (x1, y1), (x2, y2) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x1, x2)
        np.testing.assert_array_equal(y1, y2)
    tf.random.set_seed(3)
    assert _equal(_train(source, epochs=2), _train(source, epochs=2))
    np.testing.assert_array_equal(_train(source, epochs=2)[0][0][32], first[0][0])


def test_a_run_that_starts_later_continues_the_whole_run(source):
    whole = _train(source)
    assert _equal(_train(source, start=(1, 0)), whole[4:])
    assert _equal(_train(source, start=(2, 0)), whole[8:])
    assert _equal(_train(source, start=(1, 3)), whole[7:])
    assert _equal(_train(source, start=(0, 4)), whole[4:])
    assert _train(source, start=(3, 0)) == []


def test_epochs_and_seeds_differ(source):
    whole = _train(source)
    assert not _equal(whole[:4], whole[4:8])
    assert not _equal(whole[:4], _train(source, epochs=1, seed=2))


def test_an_epoch_shows_no_image_twice(source):
    # Of 22 images an epoch of four batches of 5 leaves out two.
    dataset = source.examples(1, 0).take(20)
    assert len({int(i) for i, _, _ in dataset}) == 20


def test_an_image_of_a_batch_is_what_its_seed_epoch_and_index_say(source):
    batches = _train(source, epochs=2)
    index, item, label = list(source.examples(1, 1))[7]
    image, name = source.load(index, item)
    expected = multi_resolution.train_images(
        image, name, {32: 32, 24: 24}, transforms.fold_seed(1, 1, index)
    )
    images, labels = batches[4 + 1]
    np.testing.assert_array_equal(images[24][2], expected[24])
    assert labels[2] == int(label)


def test_views_give_a_branch_each(source):
    images, _ = _train(source, (32,), views=5, crops="per_resolution")[0]
    assert list(images) == [f"32_view{i}" for i in range(1, 6)]
    assert len({view.tobytes() for view in images.values()}) == 5
    val = pipeline.val_dataset(source, (32,), batch_size=4, views=5)
    images, _ = next(iter(val))
    assert len({view.numpy().tobytes() for view in images.values()}) == 1


def test_validation_is_in_order_and_complete(source):
    val = sources.open_source("shapes", "val")
    dataset = pipeline.val_dataset(val, (32, 24), batch_size=8)
    batches = list(dataset)
    assert [len(labels) for _, labels in batches] == [8, 8, 6]
    assert int(dataset.cardinality()) == 3
    images, labels = shapes.generate("val")
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), labels)
    np.testing.assert_array_equal(
        batches[2][0][24][1], transforms.validation(images[17], 24)
    )


def test_files_come_in_the_given_order_and_fit(photos):
    paths = image_files.list_images(photos / "train" / "a")
    assert [path.name for path in paths] == [f"{i}.jpg" for i in range(5)]
    native = photos / "native.png"
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    native.write_bytes(tf.io.encode_png(pixels).numpy())
    paths = [*reversed(paths), *image_files.list_images(native)]
    for fit, transform in (
        ("crop", transforms.validation),
        ("squash", transforms.squash),
    ):
        dataset = image_files.files_dataset(paths, 24, batch_size=4, fit=fit)
        images = np.concatenate(list(dataset))
        assert images.shape == (6, 24, 24, 3) and images.dtype == np.uint8
        raw = tf.io.decode_image(tf.io.read_file(str(paths[1])))
        np.testing.assert_array_equal(images[1], transform(raw, 24))
        # r x r already: as it is
        np.testing.assert_array_equal(images[5], pixels)


def test_a_damaged_file_is_named_by_every_dataset(photos):
    damaged = photos / "val" / "b" / "1.jpg"
    broken = sources.open_source(f"folder:{photos}", "val")
    # It was good when it was looked at.
    damaged.write_bytes(b"not an image")
    # That one was scanned: nothing in it expects an error.
    train = pipeline.train_dataset(broken, (24,), batch_size=2, epochs=1, seed=0)
    suspects = [str(photos / "val" / "a" / "1.jpg"), str(damaged)]
    for dataset, found in (
        (train, suspects),
        (pipeline.val_dataset(broken, (24,), batch_size=2), ()),
        (image_files.files_dataset([damaged], 24, batch_size=2), ()),
    ):
        with (
            pytest.raises(damage.DamagedImage) as error,
            damage.damaged_images(lambda found=found: found),
        ):
            list(dataset)
        assert str(error.value) == (
            f"An image file is damaged or of an unknown format. Received: {damaged}"
        )
    with pytest.raises(tf.errors.InvalidArgumentError), damage.damaged_images():
        list(train)
    damaged.unlink()
    suspects.insert(0, str(photos / "no.jpg"))
    with (
        pytest.raises(damage.DamagedImage, match="cannot be read. Received: .*1.jpg"),
        damage.damaged_images(lambda: suspects),
    ):
        list(train)
    for lost in (tf.errors.UnavailableError, tf.errors.InvalidArgumentError):
        with pytest.raises(lost), damage.damaged_images(lambda: suspects):
            raise lost(None, None, "another process")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"batch_size": 23},
            "`batch_size` must be at most the number of training images, 22. "
            "Received: batch_size=23",
        ),
        (
            {"batch_size": 0},
            "`batch_size` must be a positive integer. Received: batch_size=0",
        ),
        (
            {"crops": "none"},
            "`crops` must be one of 'shared', 'per_resolution'. Received: crops='none'",
        ),
        (
            {"flip": "never"},
            "`flip` must be one of 'per_resolution', 'shared'. Received: flip='never'",
        ),
        (
            {"area": (0.5, 0.2)},
            "`area` must be two shares of the image's area, 0 < smallest <= largest <= "
            "1. Received: area=(0.5, 0.2)",
        ),
        (
            {"resolutions": (32, 32)},
            "`resolutions` must be distinct positive integers, in pixels. Received: "
            "resolutions=(32, 32)",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(source, options, expected):
    with pytest.raises(ValueError) as error:
        _train(source, **options)
    assert str(error.value) == expected


def test_images_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        image_files.list_images(tmp_path / "none.jpg")
    assert str(error.value) == (
        "Images must be an existing file or directory. "
        f"Received: {tmp_path / 'none.jpg'}"
    )
    text = tmp_path / "notes.txt"
    text.write_text("")
    with pytest.raises(ValueError) as error:
        image_files.list_images(text)
    assert str(error.value) == (
        "An image file must end in .jpg, .jpeg, .png, .bmp, .gif or .webp. "
        f"Received: {text}"
    )
    with pytest.raises(ValueError) as error:
        image_files.list_images(tmp_path)
    assert str(error.value) == (
        "A directory of images must hold files ending in .jpg, .jpeg, .png, .bmp, .gif "
        f"or .webp, also in directories of its own. Received: {tmp_path}"
    )
    with pytest.raises(ValueError, match="At least one image is needed. Received:"):
        image_files.files_dataset([], 24, batch_size=2)
    with pytest.raises(ValueError, match="`fit` must be one of .* Received: fit='pad'"):
        image_files.files_dataset(["a.jpg"], 24, batch_size=2, fit="pad")


def test_images_in_directories_are_found_and_hidden_ones_are_not(tmp_path):
    for name in ("b.jpg", "class/a.PNG", "class/.a.jpg", ".cache/c.jpg", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert image_files.list_images(tmp_path) == [
        tmp_path / "b.jpg",
        tmp_path / "class" / "a.PNG",
    ]


def test_a_label_out_of_range_is_named():
    label = tf.constant(7, tf.int32)
    name = tf.constant("example 3 of train")

    def check(label):
        return decoding.checked_label(label, ("a", "b"), name)

    assert int(check(tf.constant(1, tf.int32))) == 1
    dataset = tf.data.Dataset.from_tensors(label).map(check)
    with pytest.raises(damage.DamagedImage) as error, damage.damaged_images():
        list(dataset)
    assert str(error.value) == (
        "Labels must be in [0, 2). Received: 7 for example 3 of train"
    )


def test_a_file_that_vanished_is_named(tmp_path):
    dataset = image_files.files_dataset([tmp_path / "gone.jpg"], 24, batch_size=1)
    with (
        pytest.raises(damage.DamagedImage, match="cannot be read. Received: .*gone"),
        damage.damaged_images(),
    ):
        list(dataset)


def test_the_images_of_a_step_are_named(photos, source):
    folder = sources.open_source(f"folder:{photos}", "train")
    found = pipeline.images_of_step(folder, batch_size=3, seed=0, epoch=1, step=2)
    order = list(folder.examples(0, 1).as_numpy_iterator())[6:9]
    assert found == [path.decode() for _, path, _ in order]
    found = pipeline.images_of_step(source, batch_size=1, seed=0, epoch=0, step=0)
    index = next(source.examples(0, 0).as_numpy_iterator())[0]
    assert found == [f"image {index} of shapes"]

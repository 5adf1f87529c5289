import numpy as np
import pytest
import tensorflow as tf

from rs_keras.data import decoding
from rs_keras.data import multi_resolution
from rs_keras.data import transforms

SEED = (3, 4)
BRANCHES = {48: 48, 32: 32, 24: 24}
VIEWS = {"32_view1": 32, "32_view2": 32, "32_view3": 32}


@pytest.fixture(scope="module")
def image():
    # Smooth, so that JPEG's own losses stay small; unequal left and right.
    y, x = np.mgrid[0:90, 0:120]
    channels = (2 * x, x + y, 90 + 60 * np.sin(x / 9) * np.cos(y / 7))
    return np.stack(channels, axis=-1).astype(np.uint8)


def _train(image, branches, seed=SEED, **options):
    images = multi_resolution.train_images(
        tf.constant(image), tf.constant("it"), branches, seed, **options
    )
    return {key: value.numpy().astype(int) for key, value in images.items()}


def _matches(image, other):
    """ "same", "mirrored" or None."""
    if np.abs(image - other).max() <= 1:
        return "same"
    return "mirrored" if np.abs(image[:, ::-1] - other).max() <= 1 else None


def _flips(image, seed, **options):
    """Whether each view of one shared crop is mirrored against the first."""
    views = list(_train(image, VIEWS, (seed, 0), **options).values())
    return [_matches(views[0], view) for view in views[1:]]


def test_all_resolutions_see_one_crop(image):
    window = transforms.draw_crop(
        90, 120, transforms.fold_seed(SEED, multi_resolution._CROP, 0)
    )
    crop = transforms.crop(image, window)
    for resolution, actual in _train(image, BRANCHES).items():
        assert actual.shape == (resolution, resolution, 3)
        assert _matches(transforms.squash(crop, resolution).numpy(), actual)


def test_flips_are_independent_per_resolution_by_default(image):
    found = [_flips(image, seed) for seed in range(20)]
    assert {x for pair in found for x in pair} == {"same", "mirrored"}
    assert len({tuple(pair) for pair in found}) == 4


def test_a_shared_flip_mirrors_all_or_none(image):
    assert all(
        _flips(image, seed, flip="shared") == ["same", "same"] for seed in range(10)
    )
    seen = [_train(image, {32: 32}, (s, 0), area=(1, 1))[32] for s in range(10)]
    assert len({bool(x[:, 0].mean() > x[:, -1].mean()) for x in seen}) == 2


def test_crops_per_resolution_differ(image):
    views = list(_train(image, VIEWS, crops="per_resolution").values())
    assert _matches(views[0], views[1]) is None and _matches(views[1], views[2]) is None


def test_choices_repeat_and_differ_by_seed(image):
    first, again = _train(image, BRANCHES), _train(image, BRANCHES)
    other = _train(image, BRANCHES, (3, 5))
    for key in BRANCHES:
        np.testing.assert_array_equal(first[key], again[key])
        assert _matches(first[key], other[key]) is None


@pytest.mark.parametrize("crops", multi_resolution.CROPS)
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_files_give_what_their_pixels_give(image, kind, crops):
    # With halved chroma the crop's borders differ by a few levels: a decoder that reads
    # the crop alone does not see the colour beyond it.
    encoded = (
        tf.io.encode_png(image)
        if kind == "png"
        else tf.io.encode_jpeg(image, chroma_downsampling=False)
    )
    pixels = decoding.decode(encoded).numpy()
    dataset = tf.data.Dataset.from_tensors(encoded).map(
        lambda x: multi_resolution.train_images(x, "it", BRANCHES, SEED, crops=crops)
    )
    actual = next(iter(dataset))
    expected = _train(pixels, BRANCHES, crops=crops)
    for key in BRANCHES:
        np.testing.assert_array_equal(actual[key], expected[key])


def test_views_of_validation_are_equal(image):
    views = multi_resolution.validation_images(tf.constant(image), "it", VIEWS)
    assert list(views) == list(VIEWS)
    for view in views.values():
        np.testing.assert_array_equal(view, transforms.validation(image, 32))


def test_chained_images_are_made_of_each_other(image):
    branches = {48: 48, 40: 40, 20: 20}
    found = _train(image, branches, flip="shared", resize="chained")
    exact = _train(image, branches, flip="shared")
    np.testing.assert_array_equal(found[48], exact[48])
    for above, below, antialias in ((48, 40, False), (40, 20, True)):
        expected = tf.image.resize(
            found[above], (below, below), antialias=antialias
        ).numpy()
        assert np.abs(found[below] - expected).max() <= 0.51
        assert np.abs(found[below] - exact[below]).mean() < 2
    views = list(_train(image, VIEWS, resize="chained").values())
    assert all(_matches(views[0], view) for view in views)


@pytest.mark.parametrize("flip", multi_resolution.FLIPS)
def test_a_device_makes_the_other_images_of_the_largest(image, tiny, flip):
    model = tiny((48, 32, 24), minimum_resolution=24)
    for seed in range(5):
        exact = _train(image, BRANCHES, (seed, 0), flip=flip)
        found = _train(image, BRANCHES, (seed, 0), flip=flip, resize="device")
        assert set(found) == {"image", "mirrored"}
        batch = {key: value[None] for key, value in found.items()}
        batch = {**batch, "mirrored": batch["mirrored"] != 0}
        made = model.branches({**batch, "image": batch["image"].astype(np.uint8)})
        assert tuple(made) == (48, 32, 24)
        np.testing.assert_array_equal(made[48][0], exact[48])
        for side in (32, 24):
            other = exact[side][:, ::-1]
            difference, mirrored = (
                np.abs(np.asarray(made[side][0]) - x).mean()
                for x in (exact[side], other)
            )
            assert difference < 2 < mirrored
        evaluated = model.branches({**batch, "image": made[48]}, "crop")
        np.testing.assert_array_equal(evaluated[24], made[24])
    with pytest.raises(
        ValueError, match=r"\(N, 48, 48, 3\), with 3 branches. Received"
    ):
        model.branches({**batch, "image": made[32]})


def _damaged(image, what):
    if what in ("", "not an image"):
        return what.encode()
    data = bytearray(tf.io.encode_jpeg(image).numpy())
    if what == "truncated":
        return bytes(data[:400])
    # The header claims 65000 lines of 65000 pixels.
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = (65000).to_bytes(2) * 2
    return bytes(data)


@pytest.mark.parametrize("what", ["", "not an image", "truncated", "lying header"])
@pytest.mark.parametrize("training", [True, False])
def test_a_damaged_file_is_named(image, what, training):
    def load(encoded):
        if training:
            return multi_resolution.train_images(encoded, "a/b[1].jpg", BRANCHES, SEED)
        return multi_resolution.validation_images(encoded, "a/b[1].jpg", BRANCHES)

    dataset = tf.data.Dataset.from_tensors(_damaged(image, what)).map(load)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        next(iter(dataset))
    assert decoding.failure(error.value) == (
        "An image file is damaged or of an unknown format. Received: a/b[1].jpg"
    )


def test_other_errors_are_no_failure_to_decode():
    assert decoding.failure(tf.errors.InvalidArgumentError(None, None, "else")) is None

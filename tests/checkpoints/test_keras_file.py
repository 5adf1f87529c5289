"""Starting a run from another one's weights: what is taken, what is refused."""

import keras
import numpy as np
import pytest

from rs_keras.checkpoints import keras_file


def saved(model, path):
    model.save(path)
    return path


def test_rows_are_those_the_other_network_would_use(tiny, tmp_path):
    other = tiny(resolutions=(64, 32), class_names=list("abcdef"))
    for block in other.blocks[:1]:
        block.norm.gamma.assign([[1.0] * 16, [3.0] * 16])
    path = saved(other, tmp_path / "other.keras")
    model = tiny(resolutions=(64, 48, 16), minimum_resolution=16, seed=1)
    said = keras_file.initialize_from(model, path)
    gamma = np.asarray(model.blocks[0].norm.gamma)
    np.testing.assert_allclose(gamma[:, 0], [1, 2, 3])  # own, between, nearest
    np.testing.assert_array_equal(model.head.get_weights()[0], other.head.kernel)
    assert said == [
        "the head was copied, although the names of the classes differ",
        "alpha was reset: the resolutions differ",
    ]


def test_views_start_from_their_resolution(tiny, tmp_path):
    other = tiny(resolutions=(64, 32))
    other.blocks[0].norm.beta.assign([[1.0] * 16, [3.0] * 16])
    model = tiny(resolutions=(32,), views=2)
    keras_file.initialize_from(model, saved(other, tmp_path / "other.keras"))
    np.testing.assert_array_equal(np.asarray(model.blocks[0].norm.beta), 3)


def test_another_network_or_scaling_is_refused(tiny, tmp_path):
    path = saved(tiny(), tmp_path / "tiny.keras")
    for model in (tiny(scaling="imagenet"), _with_fewer_blocks(tiny)):
        before = model.get_weights()
        with pytest.raises(
            ValueError, match="same --model and --scaling. Received: .*tiny.keras"
        ):
            keras_file.initialize_from(model, path)
        for one, after in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, after)


def _with_fewer_blocks(tiny):
    from rs_keras.models import classifier

    blocks = tiny().blocks[:1]
    return classifier.Classifier(blocks, keras.layers.Dense(6), (64, 48, 32))


def test_files_that_hold_no_classifier_are_refused(tmp_path):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    path = saved(other, tmp_path / "dense.keras")
    with pytest.raises(ValueError, match="must hold a rs_keras.Classifier. Received: "):
        keras_file.load(path)
    broken = tmp_path / "broken.keras"
    broken.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="must be a whole .keras file. Received: "):
        keras_file.load(broken)
    with pytest.raises(ValueError, match="workdir with a finished run or a .keras"):
        keras_file.load(tmp_path / "none.keras")

"""Some images of a split or a directory are those that validation and predict see."""

import numpy as np
import pytest

from rs_keras.data import image_files
from rs_keras.data import pipeline
from rs_keras.data import samples
from rs_keras.data import sources

# 24 images in three classes, in the order of the classes; every third, say.
COUNTS = {1: 24, 7: 4, 8: 3, 10: 3, 23: 2, 24: 1, 200: 1}


@pytest.mark.parametrize("preprocessing", pipeline.PREPROCESSINGS)
def test_images_of_a_split_are_spread_over_it_and_are_those_of_validation(
    preprocessing, photos
):
    source = sources.open_source(f"folder:{photos}", "val")
    # Testing below the largest trained resolution, which only one of the two asks for.
    options = {"preprocessing": preprocessing, "largest": 64}
    dataset = pipeline.val_dataset(source, (48, 32), batch_size=24, **options)
    ((images, labels),) = dataset
    for count, step in COUNTS.items():
        found = samples.of_source(source, (48, 32), count, **options)
        assert list(found) == [48, 32]
        for r in (48, 32):
            assert found[r].dtype == np.uint8 and len(found[r]) <= count
            np.testing.assert_array_equal(found[r], images[r][::step])
    # Ten of them are of all classes.
    assert set(np.array(labels)[:: COUNTS[10]]) == {0, 1, 2}


def test_images_of_a_directory_are_those_of_predict(photos):
    paths = image_files.list_images(photos / "val")
    (images,) = image_files.files_dataset(paths, 48, batch_size=24)
    for count, step in COUNTS.items():
        found = samples.of_directory(photos / "val", (48,), count)
        assert list(found) == [48]
        assert found[48].dtype == np.uint8
        np.testing.assert_array_equal(found[48], images[::step])
    one = samples.of_directory(paths[5], (48, 32), 200)
    assert {r: i.shape for r, i in one.items()} == {
        48: (1, 48, 48, 3),
        32: (1, 32, 32, 3),
    }
    np.testing.assert_array_equal(one[48][0], images[5])
    with pytest.raises(FileNotFoundError, match="an existing file or directory"):
        samples.of_directory(photos / "none", (48,), 200)

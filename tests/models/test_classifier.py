"""The model's API: fan-out, predict, saving, configuration, refusals."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rs_keras.models import preprocessing

KEYS = (64, 48, 32)


class TestCall:
    def test_fan_out_equals_single_calls(self, model, batch):
        images = {r: batch(side=r)[0] for r in KEYS}
        outputs = model(images)
        assert tuple(outputs) == KEYS
        for r in KEYS:
            expected = model(images[r], resolution=r)
            assert outputs[r].shape == (6, 6)
            np.testing.assert_array_equal(outputs[r], expected)

    def test_a_part_of_the_branches_and_resolutions_between_are_accepted(
        self, model, batch
    ):
        images = {40: batch(side=40)[0], 32: batch(side=32)[0]}
        outputs = model(images)
        np.testing.assert_array_equal(outputs[40], model(images[40], resolution=40))

    def test_call_never_resizes(self, model, batch):
        images, _ = batch(side=(50, 37))
        whole = model(images, resolution=32).numpy()
        resized = tf.image.resize(images, (32, 32), antialias=True)
        assert np.abs(whole - model(resized, resolution=32).numpy()).max() > 1e-3

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        def graph(x):
            return model(x, resolution=32)

        np.testing.assert_allclose(graph(images), whole, rtol=1e-5, atol=1e-6)

    def test_resolution_selects_the_normalization_and_none_is_the_largest(
        self, model, batch
    ):
        images, _ = batch()
        outputs = [model(images, resolution=r).numpy() for r in (*KEYS, None)]
        np.testing.assert_array_equal(outputs[0], outputs[3])
        assert np.abs(outputs[0] - outputs[2]).max() > 1e-4
        tensor = model(images, resolution=tf.constant(48))
        np.testing.assert_allclose(tensor, outputs[1], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        ("images", "resolution", "message"),
        [
            (np.zeros((9, 9, 3), "uint8"), 32, r"Received: shape=\(9, 9, 3\)"),
            (np.zeros((1, 9, 9, 1), "uint8"), 32, r"Received: shape=\(1, 9, 9, 1\)"),
            (np.zeros((1, 9, 9, 3), "int32"), 32, "uint8 or float.* dtype=int32"),
            (np.zeros((1, 9, 9, 3), "uint8"), "32", "Received: resolution='32'"),
            (np.zeros((1, 9, 9, 3), "uint8"), -32, "Received: resolution=-32"),
            (
                {32: np.zeros((1, 32, 32, 3))},
                32,
                r"its own resolutions. Received: .*32",
            ),
        ],
    )
    def test_wrong_arguments_are_refused(self, model, images, resolution, message):
        with pytest.raises(ValueError, match=message):
            model(images, resolution=resolution)


class TestPredict:
    @pytest.mark.parametrize("side", [(70, 90), (90, 70), (40, 45), (64, 48)])
    @pytest.mark.parametrize("fit", ["crop", "squash"])
    def test_images_of_any_size_equal_pil(self, model, batch, side, fit):
        images, _ = batch(side=side)
        for r in (64, 40):
            expected = []
            for image in images:
                height, width = image.shape[:2]
                size = (r, r)
                if fit == "crop":
                    short = int(r / 0.875)
                    size = (short * width // min(side), short * height // min(side))
                pil = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
                left, top = (int(round((n - r) / 2)) for n in size)
                expected.append(np.asarray(pil.crop((left, top, left + r, top + r))))
            expected = np.stack(expected)
            got = preprocessing.fit_images(images, r, fit)
            # PIL rounds to whole grey levels between its two passes.
            assert np.abs(np.asarray(got) - expected.astype(float)).max() <= 1
            # A grey level is 1 / 255 of the range; logits are of size 1.
            np.testing.assert_allclose(
                model.predict(images, resolution=r, fit=fit, verbose=0),
                model(expected, resolution=r),
                atol=0.02,
            )

    def test_images_of_the_resolution_are_taken_as_they_are(self, model, batch):
        images, _ = batch(side=48)
        images = images + np.float32(0.4)  # neither rounded
        images[0] = 300 - 400 * (images[0] > 128)  # nor clipped
        expected = model(images, resolution=48)
        for fit in ("crop", "squash"):
            got = model.predict(images, resolution=48, fit=fit, verbose=0)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)

    def test_default_is_the_largest_resolution(self, model, batch):
        images, _ = batch(side=(70, 90))
        np.testing.assert_array_equal(
            model.predict(images, verbose=0),
            model.predict(images, resolution=64, fit="crop", verbose=0),
        )

    def test_one_function_is_kept_for_each_resolution_and_fit(self, tiny, batch):
        model = tiny()
        images, _ = batch(side=(70, 90))
        predictor = model._predictors.get(48, "crop")
        calls = []
        original = predictor.call
        predictor.call = lambda x: calls.append(x.shape) or original(x)
        first = model.predict(images, resolution=48, verbose=0)
        traced = len(calls)
        again = model.predict(images, resolution=48, verbose=0)
        np.testing.assert_array_equal(first, again)
        assert len(calls) == traced
        # Other sizes: the graph is relaxed once, and then serves all.
        for side in ((64, 64), (80, 50), (33, 90), (48, 48), (100, 40)):
            other, _ = batch(side=side)
            model.predict(other, resolution=48, verbose=0)
        assert len(calls) <= traced + 2
        np.testing.assert_allclose(
            model.predict(images, resolution=48, verbose=0), first, atol=0.02
        )
        native, _ = batch(side=48)
        np.testing.assert_allclose(
            model.predict(native + np.float32(0.4), resolution=48, verbose=0),
            model(native + np.float32(0.4), resolution=48),
            rtol=1e-5,
            atol=1e-5,
        )
        model.predict(images, resolution=48, fit="squash", verbose=0)
        assert model._predictors.get(48, "squash") is not predictor
        assert model._predictors.get(48, "crop") is predictor

    def test_predictions_follow_the_weights(self, tiny, batch):
        model = tiny()
        images, _ = batch(side=(70, 90))
        before = model.predict(images, resolution=48, verbose=0)
        model.head.bias.assign_add(np.ones(6))
        after = model.predict(images, resolution=48, verbose=0)
        np.testing.assert_allclose(after, before + 1, rtol=1e-5, atol=1e-5)

    def test_datasets_of_images_are_predicted_batch_by_batch(self, model, batch):
        images, labels = batch(side=(70, 90))
        expected = model.predict(images, resolution=48, verbose=0)
        for elements in (images, (images, labels)):
            dataset = tf.data.Dataset.from_tensor_slices(elements).batch(4)
            got = model.predict(dataset, resolution=48, verbose=0)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)

    def test_lists_of_images_are_stacked(self, model, batch):
        images, _ = batch(side=(70, 90))
        expected = model.predict(images, resolution=48, verbose=0)
        got = model.predict(list(images), resolution=48, verbose=0)
        np.testing.assert_array_equal(got, expected)

    def test_images_from_0_to_1_are_warned_of(self, model, batch):
        images, _ = batch(side=48)
        with pytest.warns(UserWarning, match="scales RGB 0..255 by itself"):
            model.predict(images / 255, verbose=0)

    @pytest.mark.parametrize("key", ["48", "48_view1"])
    def test_text_is_no_resolution(self, model, batch, key):
        with pytest.raises(ValueError, match=f"positive number.* Received: .*'{key}'"):
            model(batch(side=48)[0], resolution=key)

    @pytest.mark.parametrize(
        ("images", "options", "message"),
        [
            (np.zeros((9, 9, 3), "uint8"), {}, r"Received: shape=\(9, 9, 3\)"),
            (np.zeros((2, 9, 9, 4), "uint8"), {}, r"Received: shape=\(2, 9, 9, 4\)"),
            (np.zeros((2, 9, 9, 3), "int64"), {}, "Received: dtype=int64"),
            (np.zeros((2, 9, 9, 3), "str"), {}, "uint8 or float, .* Received: dtype="),
            (np.zeros((2, 9, 9, 3), "O"), {}, "uint8 or float, .* dtype=object"),
            (np.zeros((0, 9, 9, 3)), {}, r"At least one .* shape=\(0, 9, 9, 3\)"),
            ("photos/", {}, "files are classified by .* Received: 'photos/'"),
            (
                [np.zeros((9, 9, 3)), np.zeros((9, 8, 3))],
                {},
                r"one size. Received: 2 sizes, as \[\(9, 8, 3\), \(9, 9, 3\)\]",
            ),
            (np.zeros((2, 9, 9, 3)), {"fit": "pad"}, "'squash'.*Received: fit='pad'"),
            (
                np.zeros((2, 9, 9, 3)),
                {"resolution": 31},
                "integer of at least 32, or None .* Received: resolution=31",
            ),
            (np.zeros((2, 9, 9, 3)), {"resolution": 48.0}, "Received: resolution=48.0"),
            (np.zeros((2, 9, 9, 3)), {"resolution": "48"}, "Received: resolution='48'"),
        ],
    )
    def test_wrong_arguments_are_refused(self, model, images, options, message):
        with pytest.raises(ValueError, match=message):
            model.predict(images, verbose=0, **options)

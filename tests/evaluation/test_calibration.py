"""Batch normalization of untrained resolutions, against numpy and by definition."""

import keras
import numpy as np
import pytest
from ai_edge_litert import interpreter as litert

import rs_keras
from rs_keras import resolutions as resolutions_lib
from rs_keras.evaluation import statistics
from rs_keras.export import saved_model
from rs_keras.export import tflite
from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm


@pytest.fixture(scope="module")
def model(tiny, batch):
    """Compiled and trained for some steps, so that rows and alpha differ."""
    model = tiny(class_names=list("abcdef"))
    model.compile(rs_keras.SGD(0.05))
    for seed in range(3):
        model.train_on_batch(*batch(n=8, side=70, seed=seed))
    return model


def rows(model, resolution):
    """[(gamma, beta, mean, variance) of each layer]."""
    row = model.resolutions.index(resolution)
    return [
        tuple(
            np.array(weight)[row]
            for weight in (n.gamma, n.beta, n.moving_mean, n.moving_variance)
        )
        for n in statistics.norms(model)
    ]


def split(images, size):
    return [images[i : i + size] for i in range(0, len(images), size)]


def distance(found, expected):
    """The largest difference of a tensor, relative to its norm."""
    return max(
        np.linalg.norm(f - e) / np.linalg.norm(e)
        for ours, theirs in zip(found, expected, strict=True)
        for f, e in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [(40, 48), (41, 48), (39, 32), (56, 64), (55, 48), (30, 32), (99, 64), (48, 48)],
)
def test_nearest_takes_the_larger_of_two_as_near(resolution, expected):
    row, same, weight = resolutions_lib.nearest(resolution, (64, 48, 32))
    assert (64, 48, 32)[row] == expected and same == row and weight == 1.0


def test_a_row_that_is_added_computes_what_interpolation_does(model, batch):
    images, _ = batch(side=56)
    added = rs_keras.add_resolution(model, 56, bn="interpolate")
    assert added.resolutions == (64, 56, 48, 32)
    assert added.added_resolutions == {56: {"bn": "interpolate"}}
    for resolution in (64, 56, 48, 32):
        found, expected = (
            m.predict(images, resolution=resolution, verbose=0) for m in (added, model)
        )
        # One graph mixes rows that the other reads: roundings of float32.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    alpha = np.array(model.alpha)
    expected = [alpha[0], (alpha[0] + alpha[1]) / 2, alpha[1], alpha[2]]
    np.testing.assert_allclose(added.alpha, expected, rtol=1e-6)


def test_nearest_copies_all_four_parameters(model):
    added = rs_keras.add_resolution(model, 56, bn="nearest")
    assert distance(rows(added, 56), rows(model, 64)) == 0


def test_calibration_in_one_pass_pools_what_each_batch_was_normalized_by(model, batch):
    """The first layer, whose input is known: moments of all images at once."""
    images, labels = batch(n=20, side=40)
    dataset = [(x, None) for x in split(images, 8)]
    added = rs_keras.add_resolution(model, 40, dataset)
    assert added.added_resolutions[40] == {
        "bn": "calibrate",
        "images": 20,
        "batch_size": 8,
        "passes": 1,
    }
    stem = model.blocks[0]
    values = np.asarray(stem.conv(_padded(images / 255.0)), "float64")
    gamma, beta, mean, variance = rows(added, 40)[0]
    np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, values.var((0, 1, 2), ddof=1), rtol=1e-4)
    interpolated = rows(rs_keras.add_resolution(model, 40, bn="interpolate"), 40)[0]
    np.testing.assert_array_equal((gamma, beta), interpolated[:2])


def _padded(images):
    return np.pad(images.astype("float32"), ((0, 0), (1, 1), (1, 1), (0, 0)))


def test_exact_calibration_equals_a_pass_for_each_layer(model, batch):
    """Layer after layer, the earlier ones fixed, as the definition says."""
    images, _ = batch(n=20, side=40)
    found = rs_keras.add_resolution(model, 40, [images], bn="calibrate_exact")
    expected = rs_keras.add_resolution(model, 40, bn="interpolate")
    row = expected.resolutions.index(40)
    inputs = {}

    class Recording(switchable_norm.SwitchableBatchNormalization):
        def call(self, x, **kwargs):
            inputs[self.name] = np.asarray(x, "float64")
            return super().call(x, **kwargs)

    for layer in statistics.norms(expected):
        layer.__class__ = Recording
    for layer in statistics.norms(expected):
        expected(images, resolution=40)
        x = inputs[layer.name]
        for weight, value in (
            (layer.moving_mean, x.mean((0, 1, 2))),
            (layer.moving_variance, x.var((0, 1, 2), ddof=1)),
        ):
            array = np.array(weight)
            array[row] = value
            weight.assign(array)
    assert distance(rows(found, 40), rows(expected, 40)) < 1e-5


def test_exact_calibration_knows_nothing_of_the_batch_size(model, batch):
    images, _ = batch(n=30, side=40)
    exact, once = (
        [
            rows(rs_keras.add_resolution(model, 40, split(images, size), bn=bn), 40)
            for size in (30, 7)
        ]
        for bn in ("calibrate_exact", "calibrate")
    )
    assert distance(*exact) < 1e-4
    assert distance(*once) > 1e-3


@pytest.mark.parametrize("bits", [(2, 32), (2, 2)])
def test_quantizers_are_left_alone(tiny, batch, bits):
    options = {"activation_basis": "private"} if bits == (2, 2) else {}
    model = tiny(bits=bits, quantizer_options=options)
    model.compile(rs_keras.SGD(0.05))
    model.train_on_batch(*batch(side=70))
    images, _ = batch(side=56)
    added = rs_keras.add_resolution(model, 56, bn="interpolate")
    calibrated = rs_keras.add_resolution(model, 56, [images])
    for layer, other in zip(
        conv_bn.leaves(added.blocks), conv_bn.leaves(calibrated.blocks), strict=True
    ):
        if not isinstance(layer, switchable_norm.SwitchableBatchNormalization):
            for a, b in zip(layer.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
    for resolution in (64, 56, 32):
        found, expected = (
            m.predict(images, resolution=resolution, verbose=0) for m in (added, model)
        )
        # Few values lie so near a threshold that a rounding moves them over it.
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


def test_dataset_comes_in_each_form_that_fit_takes(model, batch):
    images, labels = batch(n=6, side=40)
    forms = ([images], [(images, labels)], [({40: images, 32: None}, labels)])
    found = [rows(rs_keras.add_resolution(model, 40, form), 40) for form in forms]
    assert distance(found[0], found[1]) == distance(found[0], found[2]) == 0
    larger, _ = batch(n=6, side=(80, 100))
    assert rs_keras.add_resolution(model, 40, [larger]).added_resolutions[40]["images"]
    cut = rs_keras.add_resolution(model, 40, split(images, 4), images=5)
    assert cut.added_resolutions[40]["images"] == 5


def test_added_resolution_is_saved_and_trained(model, batch, tmp_path):
    images, labels = batch(n=6, side=40)
    added = rs_keras.add_resolution(model, 40, [images])
    added.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.added_resolutions == added.added_resolutions
    np.testing.assert_array_equal(
        loaded.predict(images, resolution=40, verbose=0),
        added.predict(images, resolution=40, verbose=0),
    )
    loaded.compile(rs_keras.SGD(0.01))
    loaded.fit(images, labels, verbose=0)
    assert set(loaded.evaluate(images, labels, verbose=0)) >= {"top1_40", "top1_64"}


def test_added_resolution_is_exported(model, batch, tmp_path):
    images, _ = batch(n=6, side=40)
    added = rs_keras.add_resolution(model, 40, [images])
    report = saved_model.export_saved_model(added, tmp_path / "saved")
    assert set(report["signatures"]) == {"r64", "r48", "r40", "r32", "serving_default"}
    data, report = tflite.convert(added, "signatures", "float32")
    assert report["resolutions"] == [64, 48, 40, 32]
    run = litert.Interpreter(model_content=data).get_signature_runner("r40")
    found = run(image=images[:1].astype("float32"))["logits"]
    # LiteRT's kernels round otherwise.
    np.testing.assert_allclose(found, added(images[:1], resolution=40), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"resolution": 48}, "must be a new one, beside (64, 48, 32)"),
        ({"resolution": 16}, "at least 32"),
        ({"resolution": 40, "bn": "guess"}, "`bn` must be one of"),
        ({"resolution": 40, "bn": "calibrate"}, "needs a `dataset`"),
        ({"resolution": 40, "dataset": [], "images": 3}, "all of its 3 images"),
        ({"resolution": 40, "dataset": []}, "Received: a dataset of 0"),
        ({"resolution": 40, "dataset": [({48: None}, 0)]}, "must have 40"),
    ],
)
def test_mistakes_are_named(model, arguments, words):
    with pytest.raises(ValueError, match="Received: ") as error:
        rs_keras.add_resolution(model, **arguments)
    assert words in str(error.value)


def test_what_has_no_private_row_is_refused(tiny, batch):
    images, _ = batch(side=40)
    with pytest.raises(ValueError, match="all resolutions share"):
        rs_keras.add_resolution(tiny(shared_bn=True), 40, [images])
    with pytest.raises(ValueError, match="several views"):
        rs_keras.add_resolution(tiny((64,), views=2), 40, [images])
    added = rs_keras.add_resolution(tiny(shared_bn=True), 40, bn="interpolate")
    assert added.resolutions == (64, 48, 40, 32)

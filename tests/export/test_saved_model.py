"""A SavedModel gives at every signature what the network gives."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import rs_keras
from rs_keras.export import output as output_lib
from rs_keras.export import saved_model
from rs_keras.layers import conv_bn

# The same arithmetic in another graph: float32 roundings of a few layers.
TOLERANCE = 1e-5
KINDS = {
    "float": {},
    "shared_bn": {"shared_bn": True},
    "one": {"resolutions": (64,)},
    "imagenet": {"scaling": "imagenet"},
    "w2a32": {"bits": (2, 32)},
    "w2a2": {"bits": (2, 2)},
    "private": {"bits": (2, 2), "quantizer_options": {"activation_basis": "private"}},
    "largest": {"bits": (2, 2), "quantizer_options": {"activation_basis": "largest"}},
    "rest8": {
        "bits": (2, 2),
        "rest_bits": 8,
        "shared_bn": True,
        "quantizer_options": {"activation_basis": "private"},
    },
}


def spread(model, seed=0):
    """The same network with every weight moved, each resolution's in its own way."""
    draw = np.random.default_rng(seed).normal
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(np.exp(0.3 * draw(size=variable.shape)))
        if variable.name in ("beta", "moving_mean"):
            variable.assign(0.3 * draw(size=variable.shape))
        if variable.name in ("basis", "range_min", "range_max", "bias"):
            variable.assign(variable * np.exp(0.2 * draw(size=variable.shape)))
    return model


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    model = spread(tiny(class_names=["a", "b ö", "c", "d", "e", "f"]))
    path = tmp_path_factory.mktemp("export") / "saved"
    report = saved_model.export_saved_model(model, path)
    return model, path, report


def graph(model, resolution):
    """The network as a graph, as exports are: half precision rounds otherwise."""
    function = tf.function(lambda x: model(x, resolution=resolution))
    return lambda images: function.get_concrete_function(images)(images)


def error(found, expected):
    expected = np.array(expected)
    return np.linalg.norm(np.array(found) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_compute_what_the_network_computes(kind, tiny, batch, tmp_path):
    model = spread(tiny(**KINDS[kind]))
    saved_model.export_saved_model(model, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    names = {f"r{r}" for r in model.resolutions} | {"serving_default"}
    assert set(loaded.signatures) == names
    before = [np.array(weight) for weight in model.weights]
    for resolution in model.resolutions:
        images = tf.constant(batch(3, resolution)[0], "float32")
        found = loaded.signatures[f"r{resolution}"](image=images)
        expected = graph(model, resolution)(images)
        assert error(found["logits"], expected) < TOLERANCE
        assert error(found["probabilities"], tf.nn.softmax(expected)) < TOLERANCE
    # The resolution of serving_default is round(sqrt(H * W)): between two trained
    # ones, one of them, above, below.
    for sides, resolution in (((50, 60), 55), ((48, 48), 48), ((90, 70), 79), (36, 36)):
        images = tf.constant(batch(2, sides)[0], "float32")
        found = loaded.signatures["serving_default"](image=images)["logits"]
        assert error(found, graph(model, resolution)(images)) < TOLERANCE
    for one, other in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_half_precision(precision, policy, tiny, batch, tmp_path):
    policy(precision)
    model = spread(tiny())
    policy("float32")
    saved_model.export_saved_model(model, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    images = tf.constant(batch(3, 48)[0], "float32")
    found = loaded.r48(images)["logits"]
    assert found.dtype == "float32"
    assert error(found, graph(model, 48)(images)) < TOLERANCE


def test_it_loads_where_neither_this_package_nor_keras_is(exported, fresh_python):
    _, path, _ = exported
    printed = fresh_python(
        "import sys; sys.modules['rs_keras'] = sys.modules['keras'] = None\n"
        "import tensorflow as tf\n"
        f"loaded = tf.saved_model.load({str(path)!r})\n"
        "found = loaded.signatures['r48'](image=tf.zeros((2, 48, 48, 3)))\n"
        "print({name: tuple(value.shape) for name, value in sorted(found.items())})\n"
        "print(open(loaded.class_names.asset_path.numpy(), encoding='utf-8').read())"
    )
    assert "{'logits': (2, 6), 'probabilities': (2, 6)}" in printed
    assert printed.split("\n")[1:7] == ["a", "b ö", "c", "d", "e", "f"]


def test_functions_take_both_dtypes_and_signatures_the_one_asked_for(
    exported, tiny, batch, tmp_path
):
    model, path, _ = exported
    loaded = tf.saved_model.load(str(path))
    images = batch(2, 64)[0]
    same = loaded.r64(tf.constant(images)), loaded.r64(tf.constant(images, "float32"))
    np.testing.assert_array_equal(same[0]["logits"], same[1]["logits"])
    saved_model.export_saved_model(model, tmp_path / "bytes", input_dtype="uint8")
    for where, dtype in ((path, "float32"), (tmp_path / "bytes", "uint8")):
        signatures = tf.saved_model.load(str(where)).signatures
        for name, signature in signatures.items():
            side = int(name[1:]) if name[0] == "r" else None
            image = signature.structured_input_signature[1]["image"]
            assert image.dtype == dtype and image.shape == (None, side, side, 3)


def test_the_weights_are_there_once(exported):
    model, path, report = exported
    files = {name: (path / name).stat().st_size for name in report["bytes"]}
    assert files == report["bytes"]
    needed = 4 * sum(
        np.size(weight) for weight in model.weights if weight.name != "alpha"
    )
    written = files["variables/variables.data-00000-of-00001"]
    # Beside them TensorFlow keeps the graph of objects, a few thousand bytes.
    assert needed < written < needed + 10_000


@pytest.mark.parametrize(
    "network, bits",
    [
        ("mobilenet_v2", {"weight_bits": 2, "activation_bits": 2}),
        ("resnet18", {"weight_bits": 1, "shortcut": "A"}),
        ("resnet50", {"weight_bits": 2, "activation_bits": 2}),
    ],
)
@pytest.mark.slow
def test_real_networks_compute_the_same_after_a_reload(network, bits, batch, tmp_path):
    model = spread(getattr(rs_keras, network)((64, 48), 6, width=0.25, **bits))
    # With the statistics of images: else little of them is left after so many layers.
    norms = [n for n in conv_bn.leaves(model.blocks) if hasattr(n, "moving_mean")]
    for norm in norms:
        norm.momentum = 0.0
    model({side: batch(8, side)[0] for side in (64, 48)}, training=True)
    saved_model.export_saved_model(model, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    saved_model.export_saved_model(copy, tmp_path / "again")
    again = tf.saved_model.load(str(tmp_path / "again"))
    for side in (64, 48, 56):
        images = tf.constant(batch(4, side)[0])
        expected = graph(model, side)(images)
        assert np.ptp(expected, axis=0).max() > 1e-3  # the network tells images apart
        for one in (loaded, again):
            found = one.serving_default(images)["logits"]
            assert error(found, expected) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "resnet50", "mobilenet_v2"])
def test_five_resolutions_cost_little_more_than_one(network, tmp_path):
    sizes, channels = {}, 0
    for resolutions in ((224,), (224, 192, 160, 128, 96)):
        model = getattr(rs_keras, network)(resolutions, 1000)
        output = tmp_path / str(len(resolutions))
        report = saved_model.export_saved_model(model, output)
        sizes[len(resolutions)] = sum(report["bytes"].values())
        channels = sum(w.shape[1] for w in model.weights if w.name == "gamma")
    assert report["bytes"]["saved_model.pb"] <= 3e6
    # The private part: four vectors of float32 for each of four more resolutions.
    assert sizes[5] <= 1.03 * (sizes[1] + 4 * 16 * channels)


def test_what_is_not_the_network_is_not_kept(exported, tmp_path, monkeypatch):
    model, _, _ = exported
    output = tmp_path / "saved"
    monkeypatch.setattr(saved_model, "TOLERANCES", {"float32": -1.0})
    with pytest.raises(output_lib.VerificationError, match="r64 differ"):
        saved_model.export_saved_model(model, output)
    assert list(tmp_path.iterdir()) == []


def test_only_a_saved_model_is_replaced_and_only_by_a_whole_one(
    exported, tmp_path, monkeypatch
):
    model, _, _ = exported
    output = tmp_path / "saved"
    saved_model.export_saved_model(model, output)
    with pytest.raises(ValueError, match="--overwrite. Received: "):
        saved_model.export_saved_model(model, output)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in output.rglob("*"))
    with monkeypatch.context() as patch, pytest.raises(output_lib.VerificationError):
        patch.setattr(saved_model, "TOLERANCES", {"float32": -1.0})
        saved_model.export_saved_model(model, output, overwrite=True)
    found = sorted((p.name, p.stat().st_mtime_ns) for p in output.rglob("*"))
    assert found == before
    saved_model.export_saved_model(model, output, overwrite=True)
    tf.saved_model.load(str(output))
    # A rename that fails, or is interrupted, brings the old one back.
    before = sorted((p.name, p.stat().st_mtime_ns) for p in output.rglob("*"))
    rename = pathlib.Path.rename

    def interrupted(self, target):
        if self.name == "written":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathlib.Path, "rename", interrupted)
        saved_model.export_saved_model(model, output, overwrite=True)
    found = sorted((p.name, p.stat().st_mtime_ns) for p in output.rglob("*"))
    assert found == before
    # A directory with anything else in it, and a link, are left alone.
    (tmp_path / "link").symlink_to(output)
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in (photos, tmp_path / "link"):
        with pytest.raises(ValueError, match="a SavedModel and nothing else"):
            saved_model.export_saved_model(model, path, overwrite=True)
    (output / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="a SavedModel and nothing else"):
        saved_model.export_saved_model(model, output, overwrite=True)
    assert (output / "photo.jpg").exists()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["link", "photos", "saved"]


def test_networks_that_cannot_be_exported(tiny, tmp_path):
    output = tmp_path / "saved"
    views = tiny(resolutions=(64,), views=2)
    with pytest.raises(ValueError, match="several views.* Received: tiny with 2"):
        saved_model.export_saved_model(views, output)
    broken = tiny()
    broken.head.bias.assign(np.full(6, np.nan))
    with pytest.raises(ValueError, match="all finite.* tiny/head/bias"):
        saved_model.export_saved_model(broken, output)
    for name in ("a\nb", "a\n", ""):
        with pytest.raises(ValueError, match="one line"):
            saved_model.export_saved_model(tiny(class_names=[name, *"cdefg"]), output)
    silent = tiny()
    silent.head.bias.assign(np.full(6, 3e38))
    silent.head.kernel.assign(np.full(silent.head.kernel.shape, 3e38))
    with pytest.raises(ValueError, match="logits must be finite"):
        saved_model.export_saved_model(silent, output)
    with pytest.raises(ValueError, match="`input_dtype` must be one of"):
        saved_model.export_saved_model(tiny(), output, input_dtype="int8")
    with pytest.raises(ValueError, match="directory that exists"):
        saved_model.export_saved_model(tiny(), tmp_path / "no" / "saved")
    assert list(tmp_path.iterdir()) == []

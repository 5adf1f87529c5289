"""Packed networks: bit-identical logits, small files, models that cannot be packed."""

import keras
import numpy as np
import pytest

import rs_keras
from rs_keras.checkpoints import packed
from tests.checkpoints import packed_bytes

KEYS = (64, 48, 32)


@pytest.fixture(scope="module")
def model(tiny):
    """A network with 2-bit weights and activations, no two rows or bases alike."""
    return randomized(tiny(bits=(2, 2), class_names=list("abcdef")))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "model.lq"
    packed.pack(model, path)
    return path


def randomized(network, seed=0):
    """Every weight moved by up to a quarter, as training might have left it."""
    generator = np.random.default_rng(seed)
    for weight in network.weights:
        factor = generator.uniform(0.75, 1.25, weight.shape)
        shift = generator.normal(size=weight.shape) if "norm" in weight.path else 0
        shift = np.abs(shift) if weight.name == "moving_variance" else shift
        weight.assign((np.array(weight) * factor + shift).astype("float32"))
    return network


def share(error, array):
    return np.abs(error).max() / (np.abs(array).max() or 1)


def logits(network, images, keys=(*KEYS, 40)):
    return {key: np.array(network(images, resolution=key)) for key in keys}


def kernels(network):
    """Whether it has codes, for the kernel of each convolution and the head."""
    names = ("stem", "branch1", "branch2", "shortcut", "head")
    return {
        weight.path: weight.path.split("/")[-2] not in ("stem", "head")
        for weight in network.weights
        if weight.name == "kernel" and weight.path.split("/")[-2] in names
    }


def rounded(array, path, rest, coded):
    """What a weight of the rest becomes, written down once more."""
    if path in coded and rest == "int8":
        scale = np.abs(array).max(axis=tuple(range(array.ndim - 1))) / np.float32(127)
        return np.rint(array / scale) * scale
    return array.astype("float16").astype("float32")


@pytest.mark.parametrize("weight_bits", range(1, 9))
def test_logits_are_bit_identical(tiny, batch, tmp_path, weight_bits):
    model = randomized(tiny(bits=(weight_bits, 32), seed=weight_bits))
    images, _ = batch()
    report = packed.pack(model, tmp_path / "m.lq")
    copy = packed.load_packed(tmp_path / "m.lq")
    for key, expected in logits(model, images).items():
        np.testing.assert_array_equal(copy(images, resolution=key), expected)
    assert report["rounding"] == {"largest": 0.0, "weight": None}
    assert all(v["largest_difference"] == 0 for v in report["logits"].values())
    assert weight_bits <= report["bits_per_weight"] <= weight_bits + 0.1


def test_degenerate_bases_are_bit_identical(tiny, batch, tmp_path):
    model = tiny(bits=(3, 32))
    for layer in (model.blocks[2].branch[0].conv, model.blocks[2].shortcut.conv):
        basis = np.array(layer.weight_quantizer.basis)
        kernel = np.array(layer.kernel)
        basis[0, :, 0], kernel[..., 0] = 0, 0
        basis[0, :, 1] = basis[0, 0, 1]
        basis[0, :, 2], kernel[..., 2] = (1, 3e-8, 3e-8), 1 + kernel[..., 2] * 1e-7
        layer.weight_quantizer.basis.assign(basis)
        layer.kernel.assign(kernel)
    packed.pack(model, tmp_path / "m.lq")
    copy = packed.load_packed(tmp_path / "m.lq")
    images, _ = batch()
    for key, expected in logits(model, images).items():
        np.testing.assert_array_equal(copy(images, resolution=key), expected)


@pytest.mark.parametrize("rest", ["float16", "int8"])
def test_the_rest_is_rounded_as_documented(model, batch, tmp_path, rest):
    report = packed.pack(model, tmp_path / "m.lq", rest=rest)
    copy = packed.load_packed(tmp_path / "m.lq")
    by_hand = rs_keras.Classifier.from_config(model.get_config())
    coded, largest = kernels(model), 0.0
    rest_kernels = {path for path, has_codes in coded.items() if not has_codes}
    assert len(rest_kernels) == 2 and len(coded) == 5
    for weight, target in zip(model.weights, by_hand.weights, strict=True):
        array = np.array(weight)
        exact = weight.name == "alpha" or "quant/" in weight.path
        if not exact and not coded.get(weight.path):
            value = rounded(array, weight.path, rest, rest_kernels)
            largest = max(largest, share(value - array, array))
            array = value
        target.assign(array)
    images, _ = batch()
    before = logits(model, images)
    for key, expected in logits(by_hand, images).items():
        np.testing.assert_array_equal(copy(images, resolution=key), expected)
        assert (expected != before[key]).any()
    np.testing.assert_allclose(report["rounding"]["largest"], largest)
    assert 0 < largest <= (0.5 / 127 * 1.01 if rest == "int8" else 2**-11)
    assert all(v["largest_difference"] > 0 for v in report["logits"].values())


def test_arrays_that_half_precision_does_not_hold_stay_float32(tiny, tmp_path):
    model = tiny(bits=(2, 32))
    norm, second = model.blocks[0].norm, model.blocks[2].branch[0].norm
    norm.moving_variance.assign(np.full(norm.moving_variance.shape, 7e5, "float32"))
    second.beta.assign(np.full(second.beta.shape, 1e-6, "float32"))
    packed.pack(model, tmp_path / "m.lq", rest="float16")
    copy = packed.load_packed(tmp_path / "m.lq")
    assert (np.array(copy.blocks[0].norm.moving_variance) == np.float32(7e5)).all()
    assert (np.array(copy.blocks[2].branch[0].norm.beta) == np.float32(1e-6)).all()
    rows = {row[0]: row[2] for row in packed_bytes.read(tmp_path / "m.lq")[0]["arrays"]}
    assert (
        rows[f"{norm.name}/moving_variance"] == rows[f"{second.name}/beta"] == "float32"
    )
    assert rows[f"{norm.name}/gamma"] == "float16"


def test_the_report_adds_up_to_the_file(model, tmp_path):
    for rest in packed.RESTS:
        report = packed.pack(model, tmp_path / "m.lq", rest=rest)
        parts = dict(report["bytes"])
        assert parts.pop("total") == (tmp_path / "m.lq").stat().st_size
        assert sum(parts.values()) == (tmp_path / "m.lq").stat().st_size
        quantized = 3 * 3 * 16 * 16 * 2 + 16 * 16
        assert report["quantized_weights"] == quantized
        assert report["bits_per_weight"] == 2 and parts["codes"] == quantized / 4
        assert parts["bases"] == 4 * (3 * 2 * 16 + 2)
    floats = quantized + 9 * 3 * 16 + 4 * 4 * 3 * 16 + 16 * 6 + 6 + 3
    assert report["float32_bytes"] == 4 * floats
    assert report["ratio"] == report["float32_bytes"] / report["bytes"]["total"]


def test_a_loaded_model_is_a_model_as_any_other(model, batch, file, tmp_path):
    copy = packed.load_packed(file)
    images, labels = batch(side=(70, 90))
    assert (copy.class_names, copy.name) == (model.class_names, model.name)
    found, expected = (
        network.predict(images, resolution=40, verbose=0) for network in (copy, model)
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(copy.alpha, model.alpha)
    copy.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    packed.pack(again, tmp_path / "again.lq")
    assert (tmp_path / "again.lq").read_bytes() == file.read_bytes()
    results = []
    for network in (model, copy):
        network.compile(run_eagerly=True)
        results.append(network.evaluate(images, labels, verbose=0))
    assert results[0] == results[1]


def test_training_goes_on_from_the_stored_bases(model, batch, file):
    copy = packed.load_packed(file)
    copy.compile(rs_keras.SGD(1e-3), run_eagerly=True)
    layer = copy.blocks[2].branch[0]
    before = np.array(layer.conv.weight_quantizer.basis)
    np.testing.assert_array_equal(layer.conv.weight_quantizer.biased, before)
    assert (np.array(layer.quantizer.fits) == np.float32(1e30)).all()
    images, labels = batch()
    fitted = layer.conv.fitted_basis(layer.conv.kernel, steps=1)
    copy.train_on_batch(images, labels)
    moved = np.array(layer.conv.weight_quantizer.basis) - before
    # An average that starts anew would have taken the whole step to the first fit.
    assert np.abs(moved).max() <= 0.11 * np.abs(fitted - before).max() + 1e-6


def test_a_training_state_goes_on_equally(model, batch, tmp_path):
    report = packed.pack(model, tmp_path / "m.lq", training_state=True)
    copy = packed.load_packed(tmp_path / "m.lq")
    twin = rs_keras.Classifier.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    assert report["bits_per_weight"] is None
    images, labels = batch(seed=5)
    for network in (copy, twin):
        np.testing.assert_equal(network.get_weights(), model.get_weights())
        network.compile(rs_keras.SGD(0.05, weight_decay=1e-4), run_eagerly=True)
        network.train_on_batch(images, labels)
    for weight, other in zip(twin.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)
    assert not np.array_equal(copy.head.kernel, model.head.kernel)


@pytest.mark.parametrize(
    "options",
    [
        {"resolutions": (64,), "views": 3},
        {"shared_bn": True},
        {"quantizer_options": {"activation_basis": "private"}},
    ],
)
def test_every_kind_of_network_comes_back(tiny, batch, tmp_path, options):
    model = tiny(bits=(2, 2), **options)
    packed.pack(model, tmp_path / "m.lq")
    copy = packed.load_packed(tmp_path / "m.lq")
    images, _ = batch()
    for key, expected in logits(model, images, model.keys).items():
        np.testing.assert_array_equal(copy(images, resolution=key), expected)


def test_depthwise_kernels_and_precision_come_back(policy, batch, tmp_path):
    policy("mixed_bfloat16")
    model = rs_keras.mobilenet_v2((32,), 5, width=0.1, weight_bits=2)
    packed.pack(model, tmp_path / "m.lq")
    policy("float32")
    copy = packed.load_packed(tmp_path / "m.lq")
    assert copy.dtype_policy.name == "mixed_bfloat16"
    images, _ = batch(side=32)
    for key, expected in logits(model, images, (32,)).items():
        np.testing.assert_array_equal(copy(images, resolution=key), expected)


def test_models_and_options_that_cannot_be_packed_are_refused(tiny, model, tmp_path):
    path = tmp_path / "m.lq"

    def refused(sentence, network, path=path, **options):
        with pytest.raises(ValueError, match=f"{sentence}.* Received: ."):
            packed.pack(network, path, **options)

    refused("needs a network with quantized weights", tiny())
    refused("`rest` must be one of", model, rest="int4")
    refused("rest=float32 alone", model, rest="int8", training_state=True)
    refused("rs_keras.Classifier is needed", keras.Sequential())
    refused("file in a directory that exists", model, tmp_path)
    refused("file in a directory that exists", model, tmp_path / "none" / "m.lq")
    broken = tiny(bits=(2, 32))
    broken.head.bias.assign(np.float32([0, 0, np.inf, 0, 0, 0]))
    refused("finite float32 weights", broken)
    foreign = tiny(bits=(2, 32))
    foreign.blocks[1] = keras.layers.Dropout(0.5)
    refused("must not hold 'Dropout' of 'keras.layers'", foreign)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_or_not_at_all(model, file, tmp_path, monkeypatch):
    path = tmp_path / "m.lq"
    path.write_bytes(b"before")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packed.packed_report, "report", interrupt)
        packed.pack(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.lq"]
    assert path.read_bytes() == b"before"
    packed.pack(model, path)
    assert path.read_bytes() == file.read_bytes()


def interrupt(*args):
    raise KeyboardInterrupt

"""--rest_bits=8: LQ networks in which every kernel and tensor is one of integers."""

import keras
import numpy as np
import pytest

import rs_keras
from quant import tfmot as bridge
from rs_keras.checkpoints import keras_file
from rs_keras.checkpoints import packed
from rs_keras.layers import conv_bn
from rs_keras.layers import pooling
from rs_keras.layers import quantization
from tests import commands

SMALL = {
    "resolutions": (64, 48, 32),
    "num_classes": 6,
    "width": 0.125,
    "weight_bits": 2,
}
NETWORKS = {
    "2/32": {},
    "2/2": {"activation_bits": 2},
    "2/32, type A": {"shortcut": "A"},
    "2/2, type A": {"activation_bits": 2, "shortcut": "A"},
}


def make(name, seed=0, **options):
    keras.utils.set_random_seed(seed)
    if name == "mobilenet":
        return rs_keras.mobilenet_v2(rest_bits=8, **options, **SMALL)
    return rs_keras.resnet18(rest_bits=8, **NETWORKS[name], **options, **SMALL)


def pictures(batch, seed=0):
    images, labels = batch(seed=seed)
    return {r: images[:, :r, :r] for r in (64, 48, 32)}, labels


def ranges(model):
    found = [x for x in conv_bn.leaves(model.blocks) if quantization.is_range(x)]
    return [*found, *model.ranges.values()]


def assert_integers(x, scale, zero_point, least=-128):
    n = np.asarray(x, "float64") / scale + zero_point
    # float32 has the integers of a range to 2e-5 of them.
    np.testing.assert_allclose(n, np.round(n), atol=0.01)
    assert least <= np.round(n).min() and np.round(n).max() <= 127


def assert_known(x, quantizer):
    """x is what the quantizer of its layer says: integers of a range, or few levels."""
    if quantization.is_range(quantizer):
        assert_integers(x, *quantizer.affine())
    else:
        assert len(np.unique(x)) <= 2**quantizer.bits


def walk(layer, x, resolution):
    """The output of a layer; every tensor on the way to it is asserted to be known."""
    if isinstance(layer, conv_bn.ResidualBlock):
        y = x
        for part in layer.branch:
            y = walk(part, y, resolution)
        if isinstance(layer.shortcut, keras.layers.Layer):
            walk(layer.shortcut, x, resolution)
    y = layer(x, resolution=resolution)
    if isinstance(layer, conv_bn.ResidualBlock) and layer.shortcut is None:
        return y
    if isinstance(layer, pooling.PoolShortcut) and layer.strides == 1:
        return y
    if not isinstance(layer, pooling.MaxPool):
        assert_known(y, layer.quantizer)
    return y


@pytest.mark.parametrize("name", [*NETWORKS, "mobilenet"])
def test_every_tensor_is_one_of_known_integers(name, batch):
    model = make(name)
    images, _ = pictures(batch)
    model(images, training=True)
    for side in SMALL["resolutions"]:
        x = model.ranges["image"](model.rescaling(images[side]))
        assert_integers(x, *model.ranges["image"].affine())
        for block in model.blocks:
            x = walk(block, x, side)
        x = model.ranges["pool"](model.pool(x))
        assert_integers(x, *model.ranges["pool"].affine())
        logits = model.ranges["logits"](model.head(x))
        assert_integers(logits, *model.ranges["logits"].affine())
        np.testing.assert_array_equal(logits, model(images[side], resolution=side))
    first = next(conv_bn.leaves(model.blocks))
    for layer in (first, model.head):
        scale, zero_point = layer.weight_quantizer.affine(layer.kernel)
        assert_integers(layer.quantized_kernel(), scale, zero_point, least=-127)


def test_uint8_images_pass_as_they_are(batch):
    model = make("2/2")
    images, _ = batch()
    scaled = model.rescaling(images)
    np.testing.assert_allclose(model.ranges["image"](scaled), scaled, atol=1e-7)
    assert model.ranges["image"].affine() == (pytest.approx(1 / 255), -128)


def test_image_range_of_imagenet_scaling_holds_black_and_white():
    model = make("2/2", scaling="imagenet")
    ends = np.array([[[[0] * 3, [255] * 3]]], "uint8")
    scaled = np.asarray(model.rescaling(ends))
    rounded = np.asarray(model.ranges["image"](scaled))
    scale, _ = model.ranges["image"].affine()
    assert np.abs(rounded - scaled).max() <= scale / 2


@pytest.mark.parametrize("bits", [(2, 32), (2, 2)])
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_moves_the_ranges_and_the_loss_falls(bits, jit, tiny, batch):
    model = tiny(bits=bits, rest_bits=8)
    model.compile(rs_keras.SGD(0.05), jit_compile=jit)
    before = {x.name: x.get_weights() for x in ranges(model)}
    images, labels = pictures(batch)
    losses = [
        float(model.train_on_batch(images, labels, return_dict=True)["loss"])
        for _ in range(15)
    ]
    assert losses[-1] < 0.8 * losses[0]
    for layer in ranges(model):
        moved = layer.get_weights() != before[layer.name]
        assert moved == (layer.name != "image.range"), layer.name
    after = [x.get_weights() for x in ranges(model)]
    model.predict(images[64], resolution=48, verbose=0)
    assert after == [x.get_weights() for x in ranges(model)]


def test_every_resolution_moves_the_ranges(tiny, batch):
    options = {"activation_basis": "largest"}
    model = tiny(bits=(2, 2), rest_bits=8, quantizer_options=options)
    before = {x.name: x.get_weights() for x in ranges(model)}
    model(pictures(batch)[0][32], resolution=32, training=True)
    for layer in ranges(model):
        moved = layer.get_weights() != before[layer.name]
        assert moved == (layer.name != "image.range"), layer.name


def test_half_precision_trains(tiny, batch, policy):
    policy("mixed_float16")
    model = tiny(bits=(2, 2), rest_bits=8)
    model.compile(rs_keras.SGD(0.01))
    images, labels = pictures(batch)
    for _ in range(2):
        logs = model.train_on_batch(images, labels, return_dict=True)
    assert np.isfinite(float(logs["loss"]))


def test_a_fresh_process_reads_the_file(batch, tmp_path):
    model = make("2/2")
    images, _ = batch()
    model.save(tmp_path / "m.keras")
    packed.pack(model, tmp_path / "m.lq")
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "logits.npy", model(images, resolution=48))
    # Each file in a process of its own, which knows no range yet.
    for load in "keras.saving.load_model('m.keras')", "rs_keras.load_packed('m.lq')":
        code = (
            "import keras, numpy as np, rs_keras\n"
            f"found = {load}(np.load('images.npy'), resolution=48)\n"
            "np.testing.assert_array_equal(found, np.load('logits.npy'))\n"
        )
        (tmp_path / "program.py").write_text(code)
        found = commands.run("program", cwd=tmp_path)
        assert found.returncode == 0, found.stderr


def test_training_goes_on_after_a_keras_file(tiny, batch, tmp_path):
    model = tiny(bits=(2, 2), rest_bits=8)
    model.compile(rs_keras.SGD(0.05))
    model.train_on_batch(*pictures(batch))
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    for each in (model, copy):
        each.train_on_batch(*pictures(batch, seed=1))
    for old, new in zip(model.variables, copy.variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("rest", packed.RESTS)
def test_ranges_are_packed_as_they_are(rest, tiny, batch, tmp_path):
    model = tiny(bits=(2, 2), rest_bits=8)
    model(pictures(batch)[0], training=True)
    packed.pack(model, tmp_path / "m.lq", rest=rest)
    copy = rs_keras.load_packed(tmp_path / "m.lq")
    assert [x.get_weights() for x in ranges(copy)] == [
        x.get_weights() for x in ranges(model)
    ]


@pytest.mark.parametrize("bits", [{}, {"rest_bits": 8}, {"weight_bits": 32}])
def test_it_starts_from_other_networks(bits, batch, tmp_path):
    source = rs_keras.resnet18(**{**SMALL, **bits})
    if source.ranges:
        source(pictures(batch)[0], training=True)
    source.save(tmp_path / "m.keras")
    model = make("2/32", seed=1)
    (sentence, *more) = keras_file.initialize_from(model, tmp_path / "m.keras") or [""]
    expected = {
        (): "--rest_bits: 31 ranges start anew, 0 are not used",
        ("rest_bits",): "",
        ("weight_bits",): "float weights: the bases of weights were fitted to them; 28 "
        "layers start anew, 0 are not used",
    }
    assert (sentence, more) == (expected[tuple(bits)], [])
    theirs = {x.name: x for x in conv_bn.leaves([*source.blocks, source.head])}
    for layer in conv_bn.leaves([*model.blocks, model.head]):
        if hasattr(layer, "kernel"):
            np.testing.assert_array_equal(layer.kernel, theirs[layer.name].kernel)
        elif layer.name in theirs:
            for ours, other in zip(
                layer.weights, theirs[layer.name].weights, strict=True
            ):
                np.testing.assert_array_equal(ours, other)
    for place in source.ranges:
        ends = source.ranges[place].get_weights()
        assert model.ranges[place].get_weights() == ends


def test_the_rest_may_become_float_again(tmp_path):
    source = make("2/32")
    source.save(tmp_path / "m.keras")
    model = rs_keras.resnet18(**SMALL)
    (sentence,) = keras_file.initialize_from(model, tmp_path / "m.keras")
    assert sentence == "--rest_bits: 0 ranges start anew, 31 are not used"
    np.testing.assert_array_equal(model.head.kernel, source.head.kernel)
    assert not ranges(model)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_bits": 32, "rest_bits": 8},
        {"weight_bits": 2, "rest_bits": 4},
        {"weight_bits": 2, "rest_bits": "8"},
    ],
)
def test_bad_arguments_are_one_sentence(options):
    text = f"`rest_bits` must be 8, with .*rest_bits={options['rest_bits']!r}, weight"
    for make_model in (rs_keras.resnet18, rs_keras.mobilenet_v2):
        with pytest.raises(ValueError, match=text):
            make_model(**{**SMALL, **options})


def test_without_it_layers_are_the_stock_ones():
    model = rs_keras.resnet18(**SMALL)
    assert type(next(conv_bn.leaves(model.blocks))) is keras.layers.Conv2D
    assert type(model.head) is keras.layers.Dense
    assert not any(isinstance(x, bridge.RangeQuantizer) for x in ranges(model))

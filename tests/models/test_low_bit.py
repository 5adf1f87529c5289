"""Quantized networks: which bases a step fits, and what they compose with."""

import keras
import numpy as np
import pytest

import rs_keras
from quant import layers as quant_layers
from quant import quantizers
from rs_keras.checkpoints import keras_file
from rs_keras.checkpoints import torch_import
from rs_keras.checkpoints import training_state
from rs_keras.layers import conv_bn

RESOLUTIONS = (64, 48, 32)
SMALL = {"resolutions": RESOLUTIONS, "num_classes": 6, "width": 0.125}


def images_of(batch, seed=0):
    images, labels = batch(seed=seed)
    return {r: images[:, :r, :r] for r in RESOLUTIONS}, labels


def kernels(model):
    leaves = conv_bn.leaves(model.blocks)
    return [x for x in leaves if getattr(x, "weight_quantizer", None) is not None]


def activations(model):
    leaves = conv_bn.leaves(model.blocks)
    return [x for x in leaves if isinstance(x, quantizers.LQActivationQuantizer)]


def fits(model):
    layers = [x.weight_quantizer for x in kernels(model)], activations(model)
    return [
        sorted({float(f) for x in kind for f in np.array(x.fits)}) for kind in layers
    ]


@pytest.mark.parametrize(
    ("options", "weights", "inputs"),
    [
        ({}, [1], [1]),
        ({"basis_updates": "per_resolution"}, [3], [3]),
        ({"activation_basis": "largest"}, [1], [1]),
        ({"activation_basis": "private"}, [1], [1]),
        (
            {"basis_updates": "per_resolution", "activation_basis": "largest"},
            [3],
            [1],
        ),
    ],
)
def test_a_step_fits_each_basis_as_often_as_asked(
    tiny, batch, options, weights, inputs
):
    model = tiny(bits=(2, 2), quantizer_options=options)
    model.compile(rs_keras.SGD(0.01))
    model.train_on_batch(*images_of(batch))
    assert fits(model) == [weights, inputs]
    rows = 3 if options.get("activation_basis") == "private" else 1
    assert all(layer.basis.shape == (rows, 2, 1) for layer in activations(model))


def test_all_resolutions_of_a_step_see_the_same_bases(tiny, batch):
    images, _ = images_of(batch)
    expected = {
        r: np.array(tiny(bits=(2, 2))(images[r], resolution=r, training=True))
        for r in RESOLUTIONS
    }
    found = tiny(bits=(2, 2))(images, training=True)
    for r in RESOLUTIONS:
        np.testing.assert_allclose(found[r], expected[r], rtol=1e-5, atol=1e-5)
    # The reference's way: each finds what the one before it left.
    options = {"basis_updates": "per_resolution"}
    found = tiny(bits=(2, 2), quantizer_options=options)(images, training=True)
    np.testing.assert_allclose(found[64], expected[64], rtol=1e-5, atol=1e-5)
    assert np.abs(found[32] - expected[32]).max() > 1e-3


def test_shared_basis_is_fitted_to_all_resolutions_and_largest_to_one(tiny, batch):
    images, _ = images_of(batch)

    def basis(model, x):
        model(x, training=True)
        return np.array(activations(model)[0].basis)[0, :, 0]

    shared = basis(tiny(bits=(2, 2)), images)
    largest = basis(
        tiny(bits=(2, 2), quantizer_options={"activation_basis": "largest"}), images
    )
    private = basis(
        tiny(bits=(2, 2), quantizer_options={"activation_basis": "private"}), images
    )
    np.testing.assert_allclose(private, largest, rtol=1e-6)  # row 0 is the largest's
    assert np.abs(shared - largest).max() > 1e-4


def test_inference_leaves_every_basis_alone(tiny, batch):
    model = tiny(bits=(2, 2))
    before = [np.array(v) for v in model.variables]
    images, _ = batch()
    model(images, resolution=56)
    model.predict(images, resolution=48, verbose=0)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_private_bases_are_interpolated_between_resolutions(tiny, batch):
    options = {"activation_basis": "private"}
    model = tiny(bits=(2, 2), quantizer_options=options)
    model(images_of(batch)[0], training=True)
    images, _ = batch(side=56)
    in_graph = model(images, resolution=keras.ops.convert_to_tensor(56))
    np.testing.assert_allclose(model(images, resolution=56), in_graph, atol=1e-5)
    assert np.abs(in_graph - model(images, resolution=64)).max() > 0


@pytest.mark.parametrize("bits", [(2, 32), (2, 2), (1, 2), (3, 4)])
def test_training_goes_on_after_a_keras_file(tiny, batch, bits, tmp_path):
    model = tiny(bits=bits)
    model.compile(rs_keras.SGD(0.05, nesterov=True, decay_scope="kernels"))
    model.train_on_batch(*images_of(batch))
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    images, _ = batch()
    one, other = (x(images, resolution=48) for x in (copy, model))
    np.testing.assert_array_equal(one, other)
    for each in (model, copy):
        each.train_on_batch(*images_of(batch, seed=1))
    for old, new in zip(model.variables, copy.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_goes_on_after_a_checkpoint(tiny, batch, tmp_path):
    def fresh():
        model = tiny(bits=(2, 2))
        model.compile(rs_keras.SGD(0.05))
        return model

    model, copy = fresh(), fresh()
    model.train_on_batch(*images_of(batch))
    arrays, position = training_state.arrays(model), training_state.Position(1)
    path = training_state.save(tmp_path, arrays, position, data={})
    training_state.restore(path, copy)
    for each in (model, copy):
        each.train_on_batch(*images_of(batch, seed=1))
    for old, new in zip(model.variables, copy.variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("jit", [False, True])
def test_loss_falls(tiny, batch, jit):
    model = tiny(bits=(2, 2))
    model.compile(rs_keras.SGD(0.05), jit_compile=jit)
    losses = [
        model.train_on_batch(*images_of(batch), return_dict=True)["loss"]
        for _ in range(15)
    ]
    assert float(losses[-1]) < 0.8 * float(losses[0])


def test_half_precision_fits_float32_bases(tiny, batch, policy):
    policy("mixed_float16")
    model = tiny(bits=(2, 2))
    model.compile(rs_keras.SGD(0.01))
    logs = model.train_on_batch(*images_of(batch), return_dict=True)
    assert np.isfinite(float(logs["loss"]))
    assert all(layer.kernel.dtype == "float32" for layer in kernels(model))
    # Fitted to the float32 kernels that the step started from, not to their halves.
    policy("float32")
    full = tiny(bits=(2, 2))
    full(images_of(batch)[0], training=True)
    for half, whole in zip(kernels(model), kernels(full), strict=True):
        # Half precision would be off by 1e-3.
        np.testing.assert_allclose(
            half.weight_quantizer.basis, whole.weight_quantizer.basis, rtol=1e-5
        )


def test_every_convolution_but_the_first_is_quantized():
    model = rs_keras.resnet18(weight_bits=2, **SMALL)
    convs = [
        x for x in conv_bn.leaves(model.blocks) if isinstance(x, keras.layers.Conv2D)
    ]
    assert len(kernels(model)) == 19 == len(convs) - 1
    assert convs[0].name == "conv1"
    assert activations(model) == []
    low = rs_keras.resnet18(weight_bits=2, activation_bits=2, **SMALL)
    assert (len(kernels(low)), len(activations(low))) == (19, 16)
    assert type(low.head) is keras.layers.Dense


def test_bases_of_resnet50_are_as_many_as_the_references():
    options = {"resolutions": (64, 32), "num_classes": 6, "width": 0.125}
    model = rs_keras.resnet50(weight_bits=2, activation_bits=2, **options)
    assert len(kernels(model)) + len(activations(model)) == 100


def test_mobilenet_quantizes_pointwise_and_depthwise(batch):
    model = rs_keras.mobilenet_v2((64, 32), 6, 0.25, weight_bits=2, activation_bits=2)
    layers = kernels(model)
    depthwise = [x for x in layers if isinstance(x, quant_layers.QuantDepthwiseConv2D)]
    assert (len(layers), len(depthwise)) == (51, 17)
    assert all(
        x.weight_quantizer.basis.shape[-1] == x.kernel.shape[2] for x in depthwise
    )
    # As a graph it takes half a minute; tests/quant/test_layers.py has such layers.
    model.compile(rs_keras.SGD(0.01), run_eagerly=True)
    images, labels = batch()
    before = np.array(depthwise[-1].kernel)
    logs = model.train_on_batch(images, labels, return_dict=True)
    assert np.isfinite(float(logs["loss"]))
    assert not np.array_equal(before, np.array(depthwise[-1].kernel))


@pytest.mark.parametrize("bits", [{}, {"activation_bits": 2}])
def test_type_a_shortcuts_take_odd_sizes(bits, batch):
    # 48 pixels become maps of 3 and 2: the strided convolution rounds up.
    model = rs_keras.resnet18(weight_bits=2, shortcut="A", **bits, **SMALL)
    images, _ = batch(side=48)
    assert np.isfinite(model(images, resolution=48)).all()
    assert not any("downsample" in layer.name for layer in kernels(model))


@pytest.mark.parametrize("bits", [{}, {"activation_bits": 2}])
def test_float_weights_become_quantized_ones(bits, tmp_path):
    source = rs_keras.resnet18(**SMALL)
    source.save(tmp_path / "float.keras")
    model = rs_keras.resnet18(weight_bits=2, **bits, **SMALL)
    (sentence,) = keras_file.initialize_from(model, tmp_path / "float.keras")
    new = 4 + 4 + len(activations(model)) if bits else 0
    assert f"{new} layers start anew, 0 are not used" in sentence
    theirs = {x.name: x for x in conv_bn.leaves(source.blocks)}
    for layer in kernels(model):
        np.testing.assert_array_equal(layer.kernel, theirs[layer.name].kernel)
        error = np.square(layer.quantized_kernel() - np.array(layer.kernel)).mean()
        # Two bits leave 12% of the power of a Gaussian (Lloyd-Max); channels of few
        # weights fit better.
        assert error < 0.13 * np.square(np.array(layer.kernel)).mean()


def test_private_bases_go_to_their_resolutions(tiny, batch, tmp_path):
    options = {"quantizer_options": {"activation_basis": "private"}, "bits": (2, 2)}
    source = tiny(resolutions=(64, 48, 32), **options)
    source(images_of(batch)[0], training=True)
    source.save(tmp_path / "m.keras")
    model = tiny(resolutions=(96, 48), seed=1, **options)
    keras_file.initialize_from(model, tmp_path / "m.keras")
    for ours, theirs in zip(activations(model), activations(source), strict=True):
        for name in ("basis", "biased", "fits"):
            mine, other = np.array(getattr(ours, name)), np.array(getattr(theirs, name))
            # 96 starts from 64, the nearest.
            np.testing.assert_array_equal(mine, other[:2])
            assert name == "fits" or np.abs(other[0] - other[1]).max() > 0
    shared = tiny(bits=(2, 2))
    with pytest.raises(ValueError, match="bits and --activation_basis. Received"):
        keras_file.initialize_from(shared, tmp_path / "m.keras")


def test_quantized_weights_do_not_become_float_ones(tmp_path):
    source = rs_keras.resnet18(weight_bits=2, **SMALL)
    source.save(tmp_path / "low.keras")
    for bits, model in (
        ("resnet18 32/32", rs_keras.resnet18(**SMALL)),
        ("resnet18 3/32", rs_keras.resnet18(weight_bits=3, **SMALL)),
        ("resnet18 2/2", rs_keras.resnet18(weight_bits=2, activation_bits=2, **SMALL)),
    ):
        before = model.get_weights()
        with pytest.raises(ValueError, match=f"with resnet18 2/32, .*for {bits}"):
            keras_file.initialize_from(model, tmp_path / "low.keras")
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weight_bits": 9}, "`weight_bits` must be 1 to 8.*Received: weight_bits=9"),
        ({"weight_bits": 0}, "Received: weight_bits=0"),
        ({"weight_bits": True}, "Received: weight_bits=True"),
        ({"weight_bits": 2, "activation_bits": 16}, "Received: activation_bits=16"),
        ({"activation_bits": 2}, "no recipe with float weights. Received: weight_b"),
        ({"shortcut": "A"}, "`shortcut` must be 'B', or.*Received: shortcut='A'"),
        ({"weight_bits": 2, "shortcut": "C"}, "Received: shortcut='C'"),
        ({"weight_bits": 2, "basis_updates": "twice"}, "basis_updates='twice'"),
        ({"weight_bits": 2, "activation_basis": "x"}, "activation_basis='x'"),
    ],
)
def test_bad_arguments_are_one_sentence(options, text):
    with pytest.raises(ValueError, match=text):
        rs_keras.resnet18(**options, **SMALL)


def test_pytorch_layout_knows_float_networks_only():
    model = rs_keras.resnet18(weight_bits=2, **SMALL)
    with pytest.raises(ValueError, match="float networks only. Received: resnet18"):
        torch_import.state_dict(model)

"""Quantized ResNets against the logits of the LQ-Nets / RS-Nets reference."""

import functools

import numpy as np
import pytest

import rs_keras
from rs_keras.checkpoints import lqnet_import
from tests import golden
from tests.checkpoints import lqnet_reference

# What the golden files were computed with: float32 on another machine; a value near a
# threshold may fall on its other side.
ATOL = 1e-4

NETWORKS = {
    "resnet18_w2a32": (rs_keras.resnet18, {"weight_bits": 2}),
    "resnet18_preact_w2a2": (
        rs_keras.resnet18,
        {"weight_bits": 2, "activation_bits": 2},
    ),
    "resnet50_preact_w2a2": (
        rs_keras.resnet50,
        {"weight_bits": 2, "activation_bits": 2},
    ),
    "resnet18_preact_typeA_w1a2": (
        rs_keras.resnet18,
        {"weight_bits": 1, "activation_bits": 2, "shortcut": "A"},
    ),
}


@functools.cache
def variables(network):
    return golden.lq_variables(network)


def build(network, **options):
    function, bits = NETWORKS[network]
    return function((96, 64), 1000, **bits, **options)


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_match_the_reference(network):
    expected = golden.arrays(f"lqnet_logits_{network}.npz")
    model = build(network)
    lqnet_import.load_variables(model, variables(network))
    for resolution in (96, 64):
        images = golden.image(resolution)
        logits = np.asarray(model(images, resolution=resolution))
        np.testing.assert_allclose(logits, expected[f"logits_{resolution}"], atol=ATOL)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_variable_of_the_reference_has_a_place(network):
    # Without the golden logits, too: ResNet-50 and type A have theirs elsewhere.
    model = build(network)
    lqnet_import.load_variables(model, variables(network))
    quantizer = model.blocks[2].branch[-1].conv.weight_quantizer
    conv = "group0/block0/conv2" if "18" in network else "group0/block0/conv3"
    np.testing.assert_array_equal(
        quantizer.basis[0], variables(network)[f"{conv}/weight_quant/basis"]
    )
    # The average goes on from the basis instead of forgetting it.
    np.testing.assert_array_equal(quantizer.biased, quantizer.basis)


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_match_an_independent_forward_pass(network):
    function, bits = NETWORKS[network]
    reference = lqnet_reference.Network(
        variables(network),
        50 if "50" in network else 18,
        bits.get("activation_bits", 32),
        bits.get("shortcut", "B"),
    )
    model = build(network)
    lqnet_import.load_variables(model, variables(network))
    for resolution in (96, 64):
        images = golden.image(resolution)
        logits = np.asarray(model(images, resolution=resolution))
        expected = reference(images / 255, resolution).numpy()
        # Where activations are quantized, one that lies within float32 noise of a
        # threshold falls on either side, and its image's logits move a little.
        difference = np.abs(logits - expected).max(axis=1)
        assert difference.min() < ATOL
        assert difference.max() < (ATOL if "a32" in network else 0.3)


def test_average_of_a_basis_comes_along_where_it_is_given():
    arrays = dict(variables("resnet18_w2a32"))
    scope = "group0/block0/conv1/weight_quant/basis"
    arrays[f"{scope}/biased"] = np.full((2, 64), 0.25, "float32")
    arrays[f"{scope}/local_step"] = np.float32(7)
    model = build("resnet18_w2a32")
    lqnet_import.load_variables(model, arrays)
    quantizer = model.blocks[2].branch[0].conv.weight_quantizer
    assert float(quantizer.fits[0]) == 7
    np.testing.assert_array_equal(quantizer.biased[0], arrays[f"{scope}/biased"])


def test_half_an_average_is_refused():
    arrays = dict(variables("resnet18_w2a32"))
    scope = "group0/block0/conv1/weight_quant/basis"
    arrays[f"{scope}/biased"] = np.full((2, 64), 0.25, "float32")
    with pytest.raises(ValueError, match=f"1 missing keys: {scope}/local_step"):
        lqnet_import.load_variables(build("resnet18_w2a32"), arrays)


@pytest.mark.parametrize(
    ("function", "options", "text"),
    [
        (rs_keras.mobilenet_v2, {}, "are those of ResNets. Received: a model with f"),
        (rs_keras.resnet18, {"views": 2}, "know no views. Received: views=2"),
    ],
)
def test_other_networks_are_refused(function, options, text):
    model = function((32,), 6, 0.125, weight_bits=2, **options)
    with pytest.raises(ValueError, match=text):
        lqnet_import.load_variables(model, {})


def change(arrays, how):
    key = "group0/block0/conv1/weight_quant/basis"
    if how == "missing":
        del arrays[key]
    elif how == "unexpected":
        arrays["group9/W"] = np.zeros(3)
    elif how == "mis-shaped":
        arrays[key] = np.zeros((3, 64))
    else:
        arrays[key] = np.full((2, 64), np.nan)


@pytest.mark.parametrize("how", ["missing", "unexpected", "mis-shaped", "not finite"])
def test_variables_that_do_not_fit_change_nothing(how):
    arrays = dict(variables("resnet18_w2a32"))
    change(arrays, how)
    model = build("resnet18_w2a32")
    before = [np.array(v) for v in model.variables]
    with pytest.raises(ValueError, match=f"Received: 1 {how} keys: group"):
        lqnet_import.load_variables(model, arrays)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_float_network_is_refused():
    model = rs_keras.resnet18((96, 64), 10, width=0.25)
    with pytest.raises(ValueError, match="Received: resnet18 with float weights"):
        lqnet_import.load_variables(model, {})

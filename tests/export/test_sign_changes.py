"""Gammas of any sign, and of none, are exported with one copy of the kernels."""

import collections

import numpy as np
import pytest
import tensorflow as tf

import rs_keras
from rs_keras.export import flatbuffer
from rs_keras.layers import conv_bn
from tests.export import files
from tests.export import test_saved_model as saved
from tests.export import test_tflite as whole

SHARES = (0, 0.01, 0.1, 0.5)
DEAD = 0.05


def with_signs(model, share, seed=0):
    """The same network with other gammas.

    Half of the channels are negative at all resolutions; in a `share` of them signs
    differ between resolutions, and `DEAD` of them have gammas below 1e-6, of which some
    are 0 at one resolution and some at all.
    """
    generator = np.random.default_rng(seed)
    gammas = [w for w in model.weights if w.name == "gamma"]
    ends = np.cumsum([w.shape[1] for w in gammas])[:-1]
    values = np.concatenate([np.abs(w) for w in gammas], axis=1)
    rows, channels = values.shape
    values *= generator.choice([-1, 1], channels)
    order = generator.permutation(channels)
    mixed = order[: _count(share, channels)]
    # Neither of one sign at all resolutions: a random one is turned at some of them.
    for channel in mixed:
        turned = generator.permutation(rows)[: generator.integers(1, rows)]
        values[:, channel] = np.abs(values[:, channel])
        values[turned, channel] *= -1
    dead = order[::-1][: _count(DEAD, channels)]
    values[:, dead] = generator.uniform(-1e-6, 1e-6, (rows, len(dead)))
    values[generator.integers(rows), dead[::3]] = 0
    values[:, dead[1::3]] = 0
    for weight, value in zip(gammas, np.split(values, ends, axis=1), strict=True):
        weight.assign(value)
    return model


def _count(share, channels):
    return max(1, round(share * channels)) if share else 0


def _shares(model):
    """(number of channels, those of several signs, those below 1e-6, those of 0)."""
    gammas = [np.array(w) for w in model.weights if w.name == "gamma"]
    gammas = np.concatenate(gammas, axis=1)
    alive = np.abs(gammas).max(axis=0) > 1e-6
    mixed = (gammas.min(axis=0) < 0) & (gammas.max(axis=0) > 0) & alive
    zero = np.all(gammas == 0, axis=0)
    return gammas.shape[1], mixed.sum(), (~alive).sum(), zero.sum()


def _behind_kernels(data):
    """{operator: how many of them take a constant vector behind a kernel}."""
    model = flatbuffer.read(data)
    found = collections.Counter()
    for graph in model.subgraphs:
        behind = set()
        for operator in graph.operators:
            name = flatbuffer.operator_name(model, operator)
            if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                found[name] += operator.inputs[0] in behind
                behind.add(operator.outputs[0])
            elif name in ("MUL", "ADD") and operator.inputs[0] in behind:
                values = flatbuffer.constant(model, graph, operator.inputs[1])
                if values is not None and values.ndim == 1:
                    found[name] += 1
                    behind.add(operator.outputs[0])
    return found


def _logits(model, batch):
    """{resolution: what the network gives}."""
    images = {r: tf.constant(batch(4, r)[0]) for r in model.resolutions}
    expected = {r: np.array(saved.graph(model, r)(x)) for r, x in images.items()}
    # The network tells images apart.
    assert all(np.ptp(logits, axis=0).max() > 1e-3 for logits in expected.values())
    return expected


def _assert_computes(data, expected, layout, batch, tolerance):
    for r, logits in expected.items():
        key = f"r{r}" if layout == "signatures" else "serving_default"
        images = batch(4, r)[0].astype("float32")
        found = files.run(data, key, images)["logits"]
        assert saved.error(found, logits) < tolerance


@pytest.fixture(scope="module")
def once(batch):
    """A function (name, make) -> the network that `make()` makes, and its logits.

    One network is exported in many ways, and none of them changes it.
    """
    made = {}

    def get(name, make):
        if name not in made:
            model = make()
            made[name] = model, _logits(model, batch), model.get_weights()
        model, logits, weights = made[name]
        for one, other in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        return model, logits

    return get


# The dynamic layout has gammas in a table and knows no signs: one share by default.
@pytest.mark.parametrize(
    "share, layout, precision",
    [
        pytest.param(
            share,
            *pair,
            marks=pytest.mark.slow if pair[0] == "dynamic" and share < 0.5 else (),
        )
        for share in SHARES
        for pair in whole.PAIRS
    ],
)
def test_channels_whose_signs_differ_between_resolutions(
    share, layout, precision, tiny, batch, once
):
    model, logits = once(share, lambda: with_signs(saved.spread(tiny()), share))
    channels, mixed, dead, zero = _shares(model)
    assert (channels, mixed) == (64, {0: 0, 0.01: 1, 0.1: 6, 0.5: 32}[share])
    assert (dead, zero) == (3, 1)
    data, report = files.calibrated(model, layout, precision, batch)
    _assert_computes(data, logits, layout, batch, whole.TOLERANCES[precision])
    stored = report["kernels"]
    elements = sum(np.size(w) for w in model.weights if w.name == "kernel")
    bytes_each = whole.KERNEL_BYTES[precision]
    copied = sum(copy["bytes"] for copy in stored["copies"])
    kernels = report["bytes_by_kind"]["kernels"]
    # Those of the products among integers are kernels, too, of 16 channels.
    pixels = 16 * stored["products"] if precision == "int8" else 0
    assert 0 <= kernels - (elements * bytes_each + copied) <= pixels
    behind = _behind_kernels(data)
    if layout == "signatures":
        # Among integers a product is a convolution of one pixel.
        product = "DEPTHWISE_CONV_2D" if precision == "int8" else "MUL"
        assert behind[product] == stored["products"]
        assert behind["ADD"] == stored["sums"]
        if not precision.startswith("int8"):
            # Two resolutions, four convolutions; and the third resolution where its
            # own gamma is the tiny one.
            assert 8 <= stored["products"] <= 12 and stored["copies"] == []
        else:
            assert (stored["products"] > 0) == (share > 0)
            # At 32 of 64 channels the smallest kernel is among the mixed ones.
            assert bool(stored["copies"]) or share < 0.5
            assert {c["kernel"] for c in stored["copies"]} <= {"shortcut_norm"}
            assert {c["bytes"] for c in stored["copies"]} <= {256}
    else:
        assert (stored["copies"], stored["products"], stored["sums"]) == ([], 0, 0)


EXTREMES = {
    # (gammas of one channel after the other at three resolutions, beta of them all)
    "zeros": ([(0, 0, 0), (0, 1, -1), (1, 0, 0), (1e-7, 50, -50)], 0.3),
    "a large bias": ([(1, 1e-7, -1e-7)], 100),
}


def _extreme(model, gammas, beta):
    for norm in [n for n in conv_bn.leaves(model.blocks) if hasattr(n, "gamma")]:
        for weight, values in ((norm.gamma, np.transpose(gammas)), (norm.beta, beta)):
            changed = np.array(weight)
            changed[:, 3 : 3 + len(gammas)] = values
            weight.assign(changed)
    return model


@pytest.mark.parametrize("layout, precision", whole.PAIRS)
@pytest.mark.parametrize("kind", EXTREMES)
def test_channels_of_extreme_gammas_and_betas(
    kind, layout, precision, tiny, batch, once
):
    model, logits = once(kind, lambda: _extreme(saved.spread(tiny()), *EXTREMES[kind]))
    data, report = files.calibrated(model, layout, precision, batch)
    _assert_computes(data, logits, layout, batch, whole.TOLERANCES[precision])
    if (layout, precision) == ("signatures", "float32"):
        # A bias of 100 divided by a factor of 1e-7, or any by 0, is a sum of its own.
        assert report["kernels"]["sums"] == _behind_kernels(data)["ADD"] > 0


# 53 layers in a row with random weights amplify roundings: measured, those of float32
# to 5e-4 and those of half precision, 2**-11, to 4e-2. Those of 8-bit activations would
# be all that is left: int8 is tested on shallower networks.
REAL_TOLERANCES = {
    ("signatures", "float32"): 1e-3,
    ("signatures", "float16"): 0.1,
    # Against the network with rounded kernels: the rest is float32.
    ("signatures", "int8_weights"): 1e-3,
    ("dynamic", "float32"): 1e-3,
    ("dynamic", "float16"): 0.1,
    # Its table of gammas is in half precision.
    ("dynamic", "int8_weights"): 0.1,
}


def _round_kernels(model):
    """To 255 levels of each output channel, as the exporter is documented to."""
    for weight in model.weights:
        if not weight.name.endswith("kernel"):
            continue
        values = np.array(weight, "float64")
        depthwise = values.ndim == 4 and values.shape[-1] == 1
        axes = (0, 1, 3) if depthwise else tuple(range(values.ndim - 1))
        step = np.abs(values).max(axis=axes, keepdims=True) / 127
        weight.assign(np.rint(values / step) * step)


@pytest.mark.slow
@pytest.mark.parametrize("layout, precision", REAL_TOLERANCES)
def test_a_real_network_whose_signs_differ(layout, precision, batch):
    for share in SHARES:
        model = rs_keras.mobilenet_v2((64, 48, 32), 10, width=0.35)
        model = with_signs(saved.spread(model), share)
        channels, mixed, dead, zero = _shares(model)
        assert mixed == round(share * channels)
        assert dead == round(DEAD * channels) and zero > 0.3 * dead
        # With the statistics of images: else little of them is left after so many
        # layers.
        norms = [n for n in conv_bn.leaves(model.blocks) if hasattr(n, "moving_mean")]
        for norm in norms:
            norm.momentum = 0.0
        model({r: batch(64, r)[0] for r in model.resolutions}, training=True)
        data, report = files.calibrated(model, layout, precision, batch)
        # Only kernels of up to 16 codes a channel, each at two more resolutions.
        copied = sum(copy["bytes"] for copy in report["kernels"]["copies"])
        kernels = [w.shape for w in model.weights if w.name.endswith("kernel")]
        channels = {s: s[-2] if s[2:] and s[-1] == 1 else s[-1] for s in kernels}
        small = [np.prod(s) for s in kernels if np.prod(s) <= 16 * channels[s]]
        assert copied <= 2 * sum(small)
        if precision == "int8_weights":
            _round_kernels(model)
        tolerance = REAL_TOLERANCES[layout, precision]
        _assert_computes(data, _logits(model, batch), layout, batch, tolerance)

"""Multiply-adds against the paper's tables and against counts by hand."""

import keras
import pytest

import rs_keras
from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm
from rs_keras.profiling import macs

FIVE = (224, 192, 160, 128, 96)


@pytest.fixture(scope="module", params=["resnet18", "resnet50", "mobilenet_v2"])
def network(request):
    return request.param, getattr(rs_keras, request.param)((224,), 1000)


# The paper's tables, in millions. ResNet: 1.82 G and 4.14 G at 224 (section 1.1 of
# reference-facts.md: its other ResNet-50 numbers are scaled by the area).
PAPER = {
    "resnet18": (1820, 1340, 931, 596, 335),
    "resnet50": tuple(4140 * (r / 224) ** 2 for r in FIVE),
    "mobilenet_v2": (300.8, 221.3, 154.1, 99.1, 56.3),
}
# Convolutions and head, counted on the official networks.
COUNTED = {
    "resnet18": (1814.1, 1332.9, 925.8, 592.7, 333.6),
    "resnet50": (4089.2, 3004.8, 2087.3, 1336.6, 752.7),
    "mobilenet_v2": (300.8, 221.3, 154.1, 99.1, 56.3),
}


@pytest.mark.parametrize("position", range(5), ids=[str(r) for r in FIVE])
def test_multiply_adds_are_those_of_the_paper(network, position):
    name, model = network
    got = macs.multiply_adds(model, FIVE[position]) / 1e6
    assert got == pytest.approx(PAPER[name][position], rel=0.015)
    # Printed with one decimal of a million.
    assert got == pytest.approx(COUNTED[name][position], abs=0.06)


def test_counts_of_a_small_network_equal_a_count_by_hand():
    def norm(name):
        return switchable_norm.SwitchableBatchNormalization((32,), name=name)

    layers = [
        conv_bn.conv_bn(8, 3, 2, norm=norm, name="a", norm_name="an"),
        conv_bn.conv_bn(8, 3, 1, norm=norm, name="b", norm_name="bn", depthwise=True),
    ]
    model = rs_keras.Classifier(layers, keras.layers.Dense(5, name="c"), (32,))
    # 33 x 33: 17 x 17 outputs of 3x3x3 -> 8, then 3x3 on each channel, then 8 -> 5.
    expected = 17 * 17 * 27 * 8 + 17 * 17 * 9 * 8 + 8 * 5
    assert macs.multiply_adds(model, 33) == expected
    # kernels, gamma and beta of two layers, head; not alpha
    assert macs.trainable_parameters(model) == 27 * 8 + 9 * 8 + 4 * 8 + 8 * 5 + 5

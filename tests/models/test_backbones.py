"""Sizes, initial weights, options and refusals of the backbones."""

import math

import keras
import numpy as np
import pytest

import rs_keras
from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm
from rs_keras.profiling import macs

FIVE = (224, 192, 160, 128, 96)


@pytest.mark.parametrize(
    ("build", "resolutions", "parameters"),
    [
        (rs_keras.resnet18, FIVE[:1], 11_689_512),
        (rs_keras.resnet18, FIVE, 11_727_912),
        (rs_keras.resnet50, FIVE[:1], 25_557_032),
        (rs_keras.resnet50, FIVE, 25_769_512),
        (rs_keras.mobilenet_v2, FIVE[:1], 3_504_872),
        (rs_keras.mobilenet_v2, FIVE, 3_641_320),
        # torchvision's documentation
        (rs_keras.resnet34, FIVE[:1], 21_797_672),
        (rs_keras.resnet101, FIVE[:1], 44_549_160),
    ],
)
def test_trainable_parameters_are_those_of_the_paper(build, resolutions, parameters):
    # Shapes only: a lazy initializer would spare seconds, but this is the real thing.
    model = build(resolutions, 1000)
    assert macs.trainable_parameters(model) == parameters
    assert tuple(model.alpha.shape) == (len(resolutions),)


@pytest.fixture(scope="module")
def narrow():
    return rs_keras.resnet50((64, 32), 10, width=0.25)


def _norms(model):
    return [
        layer
        for layer in conv_bn.leaves(model.blocks)
        if isinstance(layer, switchable_norm.SwitchableBatchNormalization)
    ]


def test_kernels_start_as_the_reference_draws_them():
    for model in (
        rs_keras.resnet18((32,), 300),
        rs_keras.mobilenet_v2((32,), 300),
    ):
        checked = 0
        for layer in conv_bn.leaves(model.blocks):
            if not isinstance(
                layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D
            ):
                continue
            kernel = layer.kernel.numpy()
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                filters = kernel.shape[2]
            else:
                filters = kernel.shape[3]
            deviation = math.sqrt(2 / (kernel.shape[0] * kernel.shape[1] * filters))
            if kernel.size > 2000:
                # The relative error of a deviation is 1 / sqrt(2 n); five of them.
                margin = 5 / math.sqrt(2 * kernel.size)
                assert abs(kernel.std() / deviation - 1) < margin, layer.name
                checked += 1
        assert checked > 10
        for norm in _norms(model):
            np.testing.assert_array_equal(norm.gamma, 1)
            np.testing.assert_array_equal(norm.beta, 0)
    head = model.head  # MobileNetV2: N(0, .01), bias 0
    assert abs(head.kernel.numpy().std() / 0.01 - 1) < 0.02
    np.testing.assert_array_equal(head.bias, 0)


def test_head_of_a_resnet_starts_as_pytorch_draws_it():
    model = rs_keras.resnet18((32,), 500, width=0.5)
    limit = 1 / math.sqrt(256)  # U(-1/sqrt(fan_in), 1/sqrt(fan_in)), kernel and bias
    for weight in (model.head.kernel.numpy(), model.head.bias.numpy()):
        assert np.abs(weight).max() <= limit
        assert np.abs(weight).max() > 0.98 * limit
        margin = 4 / math.sqrt(weight.size)
        assert abs(weight.std() / (limit / math.sqrt(3)) - 1) < margin


def test_every_model_and_layer_draws_other_weights():
    one, two = (rs_keras.resnet18((32,), 3, width=0.125) for _ in range(2))
    kernels = [
        layer.conv.kernel.numpy()
        for model in (one, two)
        for block in model.blocks[2:4]  # four convolutions of one shape in each model
        for layer in block.branch
    ]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) == 8


def test_zero_initialization_silences_the_last_gamma_of_each_branch():
    for build, per_block in ((rs_keras.resnet18, 2), (rs_keras.resnet50, 3)):
        model = build((64, 32), 10, width=0.125, zero_init_residual=True)
        blocks = [b for b in model.blocks if isinstance(b, conv_bn.ResidualBlock)]
        for block in blocks:
            assert len(block.branch) == per_block
            *others, last = (layer.norm.gamma.numpy() for layer in block.branch)
            assert not last.any()
            assert all((gamma == 1).all() for gamma in others)
            if isinstance(block.shortcut, conv_bn.ConvBN):
                assert (block.shortcut.norm.gamma.numpy() == 1).all()


@pytest.mark.parametrize(
    ("build", "width", "stem", "features"),
    [
        (rs_keras.resnet18, 0.25, 16, 128),
        (rs_keras.resnet50, 0.25, 16, 512),
        (rs_keras.resnet18, 1.5, 96, 768),
        (rs_keras.mobilenet_v2, 0.5, 16, 1280),
        (rs_keras.mobilenet_v2, 0.75, 24, 1280),
        (rs_keras.mobilenet_v2, 1.4, 48, 1792),
    ],
)
def test_width_scales_the_channels_in_multiples_of_eight(build, width, stem, features):
    # MobileNetV2: make_divisible of the reference; the last layer does not shrink.
    model = build((32,), 10, width=width)
    assert model.blocks[0].conv.filters == stem
    assert model.head.kernel.shape[0] == features


def test_width_rounds_as_the_reference_does():
    from rs_keras.models import resnet

    # make_divisible(v, 8): 24 * .35 = 8.4 -> 8, 32 * .35 = 11.2 -> 16 (8 < .9 * 11.2)
    got = [resnet.scaled(c, 0.35) for c in (16, 24, 32, 64, 96, 160, 320)]
    assert got == [8, 8, 16, 24, 32, 56, 112]


@pytest.mark.parametrize("build", [rs_keras.resnet18, rs_keras.mobilenet_v2])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolutions": (64, 31)}, "`resolutions` must be at least 32 for this netwo"),
        ({"resolutions": (64, 64)}, "`resolutions` must be distinct positive integers"),
        ({"num_classes": 1}, "`num_classes` must be an integer of at least 2. Receiv"),
        ({"num_classes": 2.0}, "`num_classes` must be an integer of at least 2. Rec"),
        (
            {"scaling": "zero"},
            r"`scaling` must be one of \('unit', 'imagenet', 'none'\). R",
        ),
        ({"width": 0}, "`width` must be a positive number. Received: width=0"),
        ({"width": -1.0}, "`width` must be a positive number. Received: width=-1.0"),
        ({"width": "2"}, "`width` must be a positive number. Received: width='2'"),
        ({"class_names": ["a"]}, "one name for each of the 10 classes. Received: 1 n"),
        ({"views": 2}, "More than one view needs exactly one resolution. Received: v"),
        (
            {"resolutions": (64,), "views": 2, "shared_bn": True},
            "`shared_bn` does not go with them. Received: shared_bn=True, views=2",
        ),
    ],
)
def test_wrong_arguments_are_refused(build, arguments, message):
    arguments = {
        "resolutions": (64, 32),
        "num_classes": 10,
        "width": 0.125,
        **arguments,
    }
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_policies_give_float32_logits(narrow, policy, name):
    policy(name)
    model = rs_keras.resnet50((64, 32), 10, width=0.25)
    model.set_weights(narrow.get_weights())
    x = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    logits = model(x, resolution=64)
    assert logits.dtype == "float32"
    assert model.blocks[0].compute_dtype == name.removeprefix("mixed_")
    # 8 (11) bits of mantissa through fifty layers; measured 1.3% (0.2%).
    expected = narrow(x, resolution=64).numpy()
    scale = np.abs(expected).max()
    assert np.abs(logits.numpy() - expected).max() < 0.1 * scale


def test_imagenet_scaling_subtracts_mean_and_divides_by_deviation():
    model = rs_keras.resnet18((32,), 5, width=0.125, scaling="imagenet")
    x = np.full((1, 32, 32, 3), 255, np.uint8)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    got = model.rescaling(x)[0, 0, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_uint8_and_float_images_give_the_same_logits(narrow):
    x = np.random.default_rng(0).integers(0, 256, (2, 40, 33, 3)).astype(np.uint8)
    expected = narrow(x, resolution=32)
    assert expected.shape == (2, 10)
    got = narrow(x.astype(np.float32), resolution=32)
    np.testing.assert_array_equal(got, expected)


def test_few_channels_and_an_odd_batch_train():
    """TensorFlow 2.21 crashes in the gradient of a strided 1x1 convolution there."""
    images = {32: np.full((3, 32, 32, 3), 128, np.uint8)}
    for width in (0.05, 0.125):
        model = rs_keras.resnet18(resolutions=(32,), num_classes=2, width=width)
        assert model.blocks[0].conv.filters < 16
        model.compile(rs_keras.SGD(0.1), run_eagerly=True)
        for _ in range(3):
            logs = model.train_on_batch(images, np.array([0, 1, 0]), return_dict=True)
            assert np.isfinite(logs["loss"])

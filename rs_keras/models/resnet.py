"""Resolution-switchable ResNets.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, in the variant of
the RS-Nets reference (v1.5: bottlenecks have their stride on the 3x3 convolution).
Layers are named as in the reference's checkpoints.
"""

import functools
import numbers

import keras

from rs_keras import resolutions as resolutions_lib
from rs_keras.layers import conv_bn
from rs_keras.layers import pooling
from rs_keras.layers import preactivation
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm
from rs_keras.models import classifier
from rs_keras.models import ends
from rs_keras.models import resnet_preact

# depth: (block, blocks per stage)
_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}
_STAGE_WIDTHS = (64, 128, 256, 512)
_EXPANSION = {"basic": 1, "bottleneck": 4}


def resnet(
    depth,
    resolutions,
    num_classes,
    width=1.0,
    scaling="unit",
    weight_bits=32,
    activation_bits=32,
    shortcut="B",
    *,
    rest_bits=32,
    basis_updates="once",
    activation_basis="shared",
    zero_init_residual=None,
    views=1,
    shared_bn=False,
    norm_options=None,
    quantizer_options=None,
    class_names=None,
    name=None,
):
    """A ResNet classifier with private batch normalization for each resolution.

    With quantized weights it is the network of the LQ-Nets reference, which differs
    from the float one in more than its kernels: TensorFlow's padding, a truncated
    initialization, and last gammas of a residual branch that start at 0. With quantized
    activations it is that of `resnet_preact`. The first convolution and the head stay
    float, unless `rest_bits` are given.

    Args:
        depth: 18, 34, 50 or 101.
        resolutions: distinct ints of at least 32; kept in descending order.
        num_classes: number of logits.
        width: factor on the channels of every stage, rounded to a multiple of 8.
        scaling: "unit" (x / 255, the reference) or "imagenet" (mean and deviation).
        weight_bits: 1..8, or 32 for float kernels.
        activation_bits: 1..8, or 32 for float activations.
        shortcut: where a block changes the shape: "B", a 1x1 convolution; or, in
            quantized networks, "A", average pooling and channels of zeros.
        rest_bits: 8 rounds what LQ-Nets leave float as well, kernels and tensors (the
            image, sums, what a convolution without quantized activations returns, the
            logits), to uniform integers; TensorFlow only. 32 for none.
        basis_updates, activation_basis: see `quantization.Bases`.
        zero_init_residual: start the last gamma of every residual branch at 0; default:
            as the reference, with quantized weights and float activations only.
        views: branches at a single resolution (RS-Nets, Table 6).
        shared_bn: one batch normalization for all resolutions, trained by each in
            turn (the ablation of RS-Nets, Fig. 4).
        norm_options: dict of further arguments of `SwitchableBatchNormalization`.
        quantizer_options: dict of further arguments of the quantizers.
        class_names: names of the classes, kept with the model.
        name: name of the model.

    Returns:
        `Classifier`.

    Raises:
        ValueError: see the message.
    """
    resolutions = resolutions_lib.check_resolutions(resolutions, views=views)
    low_bit = quantization.quantization(
        resolutions,
        views,
        weight_bits,
        activation_bits,
        basis_updates=basis_updates,
        activation_basis=activation_basis,
        options=quantizer_options,
        rest_bits=rest_bits,
    )
    rest = low_bit and low_bit.rest
    _check_shortcut(shortcut, low_bit)
    preact = low_bit is not None and activation_bits != quantization.FLOAT_BITS
    if zero_init_residual is None:
        zero_init_residual = low_bit is not None and not preact
    norm = norm_factory(resolutions, views, shared_bn, norm_options)
    conv = functools.partial(conv_bn.conv_bn, norm=norm)
    if low_bit is not None:
        conv = functools.partial(
            conv, padding="same", initializer=_truncated_normal_fan_out
        )
    kind, stage_sizes = _DEPTHS[depth]
    widths = [scaled(c, width) for c in _STAGE_WIDTHS]
    stem = functools.partial(conv, low_bit=rest, activation="relu")
    blocks = [
        stem(widths[0], 7, 2, name="conv1", norm_name="bn1"),
        pooling.MaxPool("torch" if low_bit is None else "same", name="maxpool"),
    ]
    block = functools.partial(
        resnet_preact.block if preact else _block,
        kind,
        conv=functools.partial(conv, low_bit=low_bit),
        norm=norm,
        zero_init_residual=zero_init_residual,
        shortcut=shortcut,
    )
    channels = widths[0]
    for stage, (filters, size) in enumerate(zip(widths, stage_sizes, strict=True)):
        for index in range(size):
            blocks.append(
                block(
                    filters,
                    filters * _EXPANSION[kind],
                    stride=2 if stage > 0 and index == 0 else 1,
                    channels=channels,
                    first=index == 0,
                    name=f"layer{stage + 1}.{index}",
                )
            )
            channels = filters * _EXPANSION[kind]
        if preact:
            # The last group is followed by the head, which is float; so is a shortcut
            # without a convolution.
            quantized = stage < len(widths) - 1 and shortcut == "B"
            name_of = f"layer{stage + 1}"
            blocks.append(resnet_preact.group_end(low_bit, norm, name_of, quantized))
    return classifier.Classifier(
        blocks,
        _head(num_classes, channels, low_bit),
        resolutions,
        views=views,
        scaling=scaling,
        rest_bits=rest_bits,
        class_names=class_names,
        name=name or f"resnet{depth}",
    )


resnet18 = functools.partial(resnet, 18)
resnet34 = functools.partial(resnet, 34)
resnet50 = functools.partial(resnet, 50)
resnet101 = functools.partial(resnet, 101)


def norm_factory(resolutions, views, shared_bn, options):
    """A function (name, **more) -> `SwitchableBatchNormalization`."""
    if shared_bn and views > 1:
        raise ValueError(
            "Views have a private normalization each, so `shared_bn` does not go with "
            f"them. Received: shared_bn={shared_bn}, views={views}"
        )
    rows = resolutions[:1] if shared_bn else resolutions

    def norm(name, **more):
        return switchable_norm.SwitchableBatchNormalization(
            rows, views=views, name=name, **{**(options or {}), **more}
        )

    return norm


def scaled(channels, width, divisor=8):
    """`channels * width`, rounded to a multiple of 8, never below 90% of it."""
    if not isinstance(width, numbers.Real) or not 0 < width < float("inf"):
        raise ValueError(f"`width` must be a positive number. Received: {width=}")
    value = max(divisor, int(channels * width + divisor / 2) // divisor * divisor)
    return value + divisor if value < 0.9 * channels * width else value


def _block(
    kind,
    filters,
    filters_out,
    *,
    conv,
    norm,
    stride,
    channels,
    name,
    zero_init_residual,
    shortcut,
    first,
):
    """A post-activation block, basic or bottleneck."""

    def layer(index, *args, **options):
        return conv(
            *args, name=f"{name}.conv{index}", norm_name=f"{name}.bn{index}", **options
        )

    last = functools.partial(norm, gamma_initializer="zeros")
    last = last if zero_init_residual else norm
    if kind == "basic":
        branch = [
            layer(1, filters, 3, stride, activation="relu"),
            layer(2, filters, 3, norm=last),
        ]
    else:
        branch = [
            layer(1, filters, 1, activation="relu"),
            layer(2, filters, 3, stride, activation="relu"),
            layer(3, filters_out, 1, norm=last),
        ]
    low_bit = conv.keywords["low_bit"]
    side = preactivation.shortcut_branch(
        conv,
        shortcut,
        filters_out,
        stride=stride,
        channels=channels,
        name=name,
        low_bit=low_bit,
    )
    return conv_bn.residual_block(branch, side, "relu", low_bit=low_bit, name=name)


def _head(num_classes, channels, low_bit):
    if low_bit is not None:
        kernel = keras.initializers.VarianceScaling(2.0)
        return ends.dense_head(
            num_classes,
            kernel_initializer=kernel,
            bias_initializer="zeros",
            rest=low_bit.rest,
            name="fc",
        )
    # PyTorch's default of a linear layer, for kernel and bias.
    limit = channels**-0.5
    return ends.dense_head(
        num_classes,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        name="fc",
    )


def _truncated_normal_fan_out():
    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def _check_shortcut(shortcut, low_bit):
    if shortcut not in ("A", "B") or (shortcut == "A" and low_bit is None):
        raise ValueError(
            "`shortcut` must be 'B', or, with quantized weights, 'A'. "
            f"Received: shortcut={shortcut!r}"
        )

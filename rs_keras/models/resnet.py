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
from rs_keras.layers import switchable_norm
from rs_keras.models import classifier

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
    *,
    zero_init_residual=False,
    views=1,
    shared_bn=False,
    norm_options=None,
    class_names=None,
    name=None,
):
    """A ResNet classifier with private batch normalization for each resolution.

    Args:
        depth: 18, 34, 50 or 101.
        resolutions: distinct ints of at least 32; kept in descending order.
        num_classes: number of logits.
        width: factor on the channels of every stage, rounded to a multiple of 8.
        scaling: "unit" (x / 255, the reference) or "imagenet" (mean and deviation).
        zero_init_residual: start the last gamma of every residual branch at 0 (an
            option of the reference that its results do not use).
        views: branches at a single resolution (RS-Nets, Table 6).
        shared_bn: one batch normalization for all resolutions, trained by each in
            turn (the ablation of RS-Nets, Fig. 4).
        norm_options: dict of further arguments of `SwitchableBatchNormalization`.
        class_names: names of the classes, kept with the model.
        name: name of the model.

    Returns:
        `Classifier`.

    Raises:
        ValueError: see the message.
    """
    resolutions = resolutions_lib.check_resolutions(resolutions, views=views)
    norm = norm_factory(resolutions, views, shared_bn, norm_options)
    kind, stage_sizes = _DEPTHS[depth]
    widths = [scaled(c, width) for c in _STAGE_WIDTHS]

    blocks = [
        conv_bn.conv_bn(
            widths[0], 7, 2, norm=norm, name="conv1", norm_name="bn1", activation="relu"
        ),
        conv_bn.MaxPool(name="maxpool"),
    ]
    channels = widths[0]
    for stage, (filters, size) in enumerate(zip(widths, stage_sizes, strict=True)):
        for index in range(size):
            block = functools.partial(
                _block,
                kind,
                filters,
                norm=norm,
                name=f"layer{stage + 1}.{index}",
                zero_init_residual=zero_init_residual,
            )
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(block(stride=stride, channels=channels))
            channels = filters * _EXPANSION[kind]
    # PyTorch's default of a linear layer, for kernel and bias.
    limit = channels**-0.5
    head = classifier.dense_head(
        num_classes,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        name="fc",
    )
    return classifier.Classifier(
        blocks,
        head,
        resolutions,
        views=views,
        scaling=scaling,
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


def _block(kind, filters, *, stride, channels, norm, name, zero_init_residual):
    last = functools.partial(norm, gamma_initializer="zeros")
    last = last if zero_init_residual else norm

    def layer(index, filters, kernel_size, strides=1, *, norm=norm, activation=None):
        return conv_bn.conv_bn(
            filters,
            kernel_size,
            strides,
            norm=norm,
            name=f"{name}.conv{index}",
            norm_name=f"{name}.bn{index}",
            activation=activation,
        )

    if kind == "basic":
        branch = [
            layer(1, filters, 3, stride, activation="relu"),
            layer(2, filters, 3, norm=last),
        ]
    else:
        branch = [
            layer(1, filters, 1, activation="relu"),
            layer(2, filters, 3, stride, activation="relu"),
            layer(3, filters * _EXPANSION[kind], 1, norm=last),
        ]
    shortcut = "identity"
    if stride != 1 or channels != filters * _EXPANSION[kind]:
        shortcut = conv_bn.conv_bn(
            filters * _EXPANSION[kind],
            1,
            stride,
            norm=norm,
            name=f"{name}.downsample.0",
            norm_name=f"{name}.downsample.1",
        )
    return conv_bn.ResidualBlock(branch, shortcut, "relu", name=name)

"""Resolution-switchable MobileNetV2.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, in
the variant of the RS-Nets reference: no dropout, a dense head. Layers are named as in
the reference's checkpoints.
"""

import keras

from rs_keras import resolutions as resolutions_lib
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization
from rs_keras.models import classifier
from rs_keras.models import ends
from rs_keras.models import resnet

# expansion, channels, blocks, stride of the first block (the paper's Table 2)
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    resolutions,
    num_classes,
    width=1.0,
    scaling="unit",
    weight_bits=32,
    activation_bits=32,
    *,
    rest_bits=32,
    basis_updates="once",
    activation_basis="shared",
    views=1,
    shared_bn=False,
    norm_options=None,
    quantizer_options=None,
    class_names=None,
    name="mobilenet_v2",
):
    """A MobileNetV2 classifier with private batch normalization for each resolution.

    Args:
        width: factor on the channels, rounded to multiples of 8; the last 1280
            channels grow with it above 1 and do not shrink below.
        weight_bits: of every kernel but the first convolution's and the head's; 32 for
            float kernels.
        activation_bits: of what a ReLU6 leaves, so of the input of each depthwise and
            each projecting convolution; but what the first convolution leaves, the
            linear bottlenecks, which have signs, and the head's input stay float. The
            LQ-Nets paper has no such network.
        Others as in `resnet`.

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
    norm = resnet.norm_factory(resolutions, views, shared_bn, norm_options)
    channels = resnet.scaled(32, width)
    blocks = [
        conv_bn.conv_bn(
            channels,
            3,
            2,
            norm=norm,
            name="features.0.0",
            norm_name="features.0.1",
            activation="relu6",
            low_bit=low_bit and low_bit.rest,
        )
    ]
    for expansion, filters, count, first_stride in _STAGES:
        filters = resnet.scaled(filters, width)
        for index in range(count):
            blocks.append(
                _inverted_residual(
                    channels,
                    filters,
                    first_stride if index == 0 else 1,
                    expansion,
                    norm=norm,
                    low_bit=low_bit,
                    name=f"features.{len(blocks)}",
                )
            )
            channels = filters
    blocks.append(
        conv_bn.conv_bn(
            resnet.scaled(1280, max(width, 1.0)),
            1,
            norm=norm,
            low_bit=low_bit,
            name="conv.0",
            norm_name="conv.1",
            activation="relu6",
        )
    )
    head = ends.dense_head(
        num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer="zeros",
        rest=low_bit and low_bit.rest,
        name="classifier",
    )
    return classifier.Classifier(
        blocks,
        head,
        resolutions,
        views=views,
        scaling=scaling,
        rest_bits=rest_bits,
        class_names=class_names,
        name=name,
    )


def _inverted_residual(channels, filters, stride, expansion, *, norm, low_bit, name):
    hidden = channels * expansion
    names = iter(range(8))  # positions in the reference's nn.Sequential

    def layer(filters, kernel_size, strides=1, *, depthwise=False, activation=None):
        conv, bn = next(names), next(names)
        # The activation has a position, too.
        output_name = f"{name}.conv.{next(names)}.quant" if activation else None
        return conv_bn.conv_bn(
            filters,
            kernel_size,
            strides,
            norm=norm,
            name=f"{name}.conv.{conv}",
            norm_name=f"{name}.conv.{bn}",
            depthwise=depthwise,
            activation=activation,
            low_bit=low_bit,
            output_name=output_name,
        )

    branch = [] if expansion == 1 else [layer(hidden, 1, activation="relu6")]
    branch.append(layer(hidden, 3, stride, depthwise=True, activation="relu6"))
    branch.append(layer(filters, 1))
    identity = stride == 1 and channels == filters
    return conv_bn.residual_block(
        branch, "identity" if identity else None, low_bit=low_bit, name=name
    )

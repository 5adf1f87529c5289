"""Multiply-adds of a network at a resolution.

Counts the multiply-accumulates of convolutions and of the head for one image, as the
RS-Nets paper does for MobileNetV2 exactly. Its ResNet numbers are up to 1.3% higher:
they also hold the arithmetic of batch normalization, and some were scaled from the
224 x 224 figure by the ratio of areas.
"""

import math

import keras

from rs_keras.layers import conv_bn
from rs_keras.layers import graph


def multiply_adds(model, resolution):
    """Multiply-adds of one forward pass.

    Args:
        model: `Classifier`.
        resolution: side of the square input, in pixels.

    Returns:
        int.
    """
    shape = (1, resolution, resolution, 3)
    total = 0
    for block in model.blocks:
        total += _count(block, shape)
        shape = block.compute_output_shape(shape)
    return total + math.prod(model.head.kernel.shape)


def trainable_parameters(model):
    """Trainable parameters without alpha, which inference does not have."""
    variables = (v for v in model.trainable_variables if v is not model.alpha)
    return sum(math.prod(v.shape) for v in variables)


def _count(layer, shape):
    if isinstance(layer, graph.Graph):
        return sum(_of_operation(*step) for step in layer.steps(shape))
    if isinstance(layer, conv_bn.ResidualBlock):
        total = 0
        if isinstance(layer.shortcut, conv_bn.ConvBN):
            total += _count(layer.shortcut, shape)
        for part in layer.branch:
            total += _count(part, shape)
            shape = part.compute_output_shape(shape)
        return total
    if isinstance(layer, conv_bn.ConvBN):
        _, height, width, channels = layer.compute_output_shape(shape)
        kh, kw, inputs, _ = layer.conv.kernel.shape
        if isinstance(layer.conv, keras.layers.DepthwiseConv2D):
            inputs = 1
        return height * width * channels * kh * kw * inputs
    return 0


def _of_operation(operation, inputs, output):
    """Multiply-adds of one operation of a graph: those with a kernel have some."""
    if isinstance(operation, keras.layers.SeparableConv2D):
        (depthwise, pointwise) = (
            math.prod(kernel.shape)
            for kernel in (operation.depthwise_kernel, operation.pointwise_kernel)
        )
        return math.prod(output[1:3]) * (depthwise + pointwise)
    if not hasattr(operation, "kernel"):
        return 0
    if isinstance(operation, keras.layers.Conv2DTranspose):
        output = inputs[0]  # each of whose pixels meets the kernel once
    # A kernel of a convolution has the channels of its output, one of a depthwise
    # convolution, too.
    return math.prod(output[1:-1]) * math.prod(operation.kernel.shape)

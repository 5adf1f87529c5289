"""Convolution, switchable normalization, activation: the hinge of every backbone.

`ConvBN` is the only place that knows which of its parts take a `resolution`, and the
only place that pads the way PyTorch does, so that the reference's weights fit.
"""

import math

import keras
from keras import layers
from keras import ops

from quant import layers as quant_layers
from rs_keras.layers import graph
from rs_keras.layers import quantization


@keras.saving.register_keras_serializable(package="rs_keras")
class ConvBN(keras.layers.Layer):
    """`activation(norm(conv(x), resolution))`.

    A convolution with `padding="valid"` is padded here by `kernel_size // 2` on every
    side, as PyTorch does; Keras' `"same"` pads strided convolutions of even sizes on
    the bottom and right only, which shifts the image.

    Args:
        conv: convolution layer (N, H, W, C) -> (N, H', W', C').
        norm: `SwitchableBatchNormalization`.
        activation: name of a Keras activation, or None.
        subsample: take every n-th row and column before the convolution. For a
            1x1 kernel that is a stride, which TensorFlow 2.21 cannot be trusted with:
            on CPU its gradient writes beyond its memory where the input has fewer than
            16 channels and the batch is odd.
        quantizer: `quant.quantizers.LQActivationQuantizer` or
            `quant.tfmot.RangeQuantizer` of the output, or None.
        bases: `quantization.Bases`, where the kernel or the output is quantized.

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: passed on to `norm`, and to `bases` for the quantizers.

    Returns:
        Tensor (N, H', W', C').
    """

    def __init__(
        self,
        conv,
        norm,
        activation=None,
        subsample=1,
        quantizer=None,
        bases=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.conv = conv
        self.norm = norm
        self.subsample = subsample
        self.activation = keras.activations.get(activation)
        self.quantizer = quantizer
        self.bases = bases

    def build(self, input_shape):
        build_once(self.conv, self._conv_input(input_shape))
        build_once(self.norm, self.compute_output_shape(input_shape))
        if self.quantizer is not None:
            build_once(self.quantizer, self.compute_output_shape(input_shape))

    def call(self, x, resolution=None, training=None):
        if self._padding():
            pad = (self._padding(), self._padding())
            x = ops.pad(x, ((0, 0), pad, pad, (0, 0)))
        if self.subsample > 1:
            x = x[:, :: self.subsample, :: self.subsample]
        update = {}
        if quantization.is_quantized(self.conv):
            update = self.bases.for_weights(resolution, training)
        x = self.conv(x, **update)
        x = self.activation(self.norm(x, resolution=resolution, training=training))
        return quantization.quantized(x, self, resolution, training)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(self._conv_input(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "conv": keras.saving.serialize_keras_object(self.conv),
            "norm": keras.saving.serialize_keras_object(self.norm),
            "activation": keras.activations.serialize(self.activation),
            "subsample": self.subsample,
            "quantizer": keras.saving.serialize_keras_object(self.quantizer),
            "bases": keras.saving.serialize_keras_object(self.bases),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialize(config, ("conv", "norm", "quantizer", "bases")))

    def _padding(self):
        return self.conv.kernel_size[0] // 2 if self.conv.padding == "valid" else 0

    def _conv_input(self, shape):
        def side(size):
            return size and -(-(size + 2 * self._padding()) // self.subsample)

        n, h, w, c = shape
        return (n, side(h), side(w), c)


@keras.saving.register_keras_serializable(package="rs_keras")
class ResidualBlock(keras.layers.Layer):
    """`activation(branch(x) + shortcut(x))`.

    One block serves ResNet (v1.5, bottlenecks with the stride on the 3x3) and
    MobileNetV2 (no activation after the sum; no sum where the shape changes).

    Args:
        branch: list of `ConvBN`, applied one after the other.
        shortcut: `ConvBN`, `"identity"`, or None for no sum at all.
        activation: name of a Keras activation applied to the sum, or None.
        quantizer: `quant.tfmot.RangeQuantizer` of the output, or None.
        bases: `quantization.Bases`, with a quantizer.

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: passed on to every `ConvBN`.

    Returns:
        Tensor (N, H', W', C').
    """

    def __init__(
        self,
        branch,
        shortcut=None,
        activation=None,
        quantizer=None,
        bases=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.branch = list(branch)
        self.shortcut = shortcut
        self.activation = keras.activations.get(activation)
        self.quantizer = quantizer
        self.bases = bases

    def build(self, input_shape):
        if isinstance(self.shortcut, keras.layers.Layer):
            build_once(self.shortcut, input_shape)
        for layer in self.branch:
            build_once(layer, input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        if self.quantizer is not None:
            build_once(self.quantizer, input_shape)

    def call(self, x, resolution=None, training=None):
        y = x
        for layer in self.branch:
            y = layer(y, resolution=resolution, training=training)
        if self.shortcut == "identity":
            y = y + x
        elif self.shortcut is not None:
            y = y + self.shortcut(x, resolution=resolution, training=training)
        y = self.activation(y)
        return quantization.quantized(y, self, resolution, training)

    def compute_output_shape(self, input_shape):
        for layer in self.branch:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "branch": keras.saving.serialize_keras_object(self.branch),
            "shortcut": keras.saving.serialize_keras_object(self.shortcut),
            "activation": keras.activations.serialize(self.activation),
            "quantizer": keras.saving.serialize_keras_object(self.quantizer),
            "bases": keras.saving.serialize_keras_object(self.bases),
        }

    @classmethod
    def from_config(cls, config):
        parts = ("branch", "shortcut", "quantizer", "bases")
        return cls(**deserialize(config, parts))


def conv_bn(
    filters,
    kernel_size,
    strides=1,
    *,
    norm,
    name,
    norm_name,
    depthwise=False,
    activation=None,
    padding="torch",
    initializer=None,
    low_bit=None,
    output_name=None,
):
    """A `ConvBN` without bias, initialized as the reference does.

    Kernels are drawn from N(0, 2 / (k * k * filters)): He et al.'s fan-out rule for
    ResNets; MobileNetV2's depthwise kernels follow the same formula there, although
    it is not their fan-out.

    Args:
        filters: output channels (for a depthwise convolution also the input's).
        norm: function of a name, returning a normalization layer.
        name, norm_name: names of the convolution and of its normalization.
        padding: "torch" for k // 2 on every side, "same" for TensorFlow's.
        initializer: function that returns another initializer of the kernel.
        low_bit: `quantization.Quantization` or its `rest`, or None for no quantizer.
        output_name: name of an activation quantizer behind the activation, if any.
    """
    # See `ConvBN`: the stride of a 1x1 convolution is taken outside of it.
    subsample = strides if kernel_size == 1 else 1
    strides = strides // subsample
    # At stride 1 "same" is PyTorch's padding, without an op of its own.
    same = padding == "same" or strides == 1
    common = {
        "strides": strides,
        "padding": "same" if same else "valid",
        "use_bias": False,
        "name": name,
    }
    if initializer is not None:
        initializer = initializer()
    else:
        deviation = math.sqrt(2 / (kernel_size * kernel_size * filters))
        initializer = keras.initializers.RandomNormal(stddev=deviation)
    if low_bit is not None:
        common["weight_quantizer"] = low_bit.of_kernel(f"{name}.weight_quant")
    if depthwise:
        kind = quant_layers.QuantDepthwiseConv2D if low_bit else layers.DepthwiseConv2D
        conv = kind(kernel_size, depthwise_initializer=initializer, **common)
    else:
        kind = quant_layers.QuantConv2D if low_bit else layers.Conv2D
        conv = kind(filters, kernel_size, kernel_initializer=initializer, **common)
    quantizer = low_bit and output_name and low_bit.of_activations(output_name)
    if low_bit is not None and quantizer is None:
        quantizer = low_bit.of_range(f"{name}.range", signed=activation is None)
    return ConvBN(
        conv,
        norm(norm_name),
        activation,
        subsample=subsample,
        quantizer=quantizer,
        bases=low_bit and low_bit.bases,
        name=f"{name}_bn",
    )


def residual_block(branch, shortcut, activation=None, *, low_bit, name):
    """A `ResidualBlock`; where there is a sum, with the range of what it returns."""
    quantizer = None
    if low_bit is not None and shortcut is not None:
        quantizer = low_bit.of_range(f"{name}.range", signed=activation is None)
    bases = low_bit and low_bit.bases
    return ResidualBlock(branch, shortcut, activation, quantizer, bases, name=name)


def leaves(layers):
    """Convolutions, normalizations, quantizers of tensors and others, in order."""
    for layer in layers:
        if isinstance(layer, graph.Graph):
            yield from layer.leaves()
            continue
        if isinstance(layer, ResidualBlock):
            yield from leaves(layer.branch)
            if isinstance(layer.shortcut, keras.layers.Layer):
                yield from leaves([layer.shortcut])
            if layer.quantizer is not None:
                yield layer.quantizer
            continue
        # `ConvBN`, `Preactivation` and `PoolShortcut` have some of these parts.
        parts = [getattr(layer, name, None) for name in ("conv", "norm", "quantizer")]
        parts = [part for part in parts if part is not None]
        yield from parts or [layer]


def build_once(layer, input_shape):
    """Builds a layer unless a reloaded configuration has built it already."""
    if not layer.built:
        layer.build(input_shape)


def deserialize(config, names):
    """A layer's configuration, the named entries turned into objects."""
    return {
        key: keras.saving.deserialize_keras_object(value) if key in names else value
        for key, value in config.items()
    }

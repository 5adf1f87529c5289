"""Convolution, switchable normalization, activation: the hinge of every backbone.

`ConvBN` is the only place that knows which of its parts take a `resolution`, and the
only place that pads the way PyTorch does, so that the reference's weights fit.
"""

import math

import keras
from keras import ops


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

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: passed on to `norm`.

    Returns:
        Tensor (N, H', W', C').
    """

    def __init__(self, conv, norm, activation=None, subsample=1, **kwargs):
        super().__init__(**kwargs)
        self.conv = conv
        self.norm = norm
        self.subsample = subsample
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        build_once(self.conv, self._conv_input(input_shape))
        build_once(self.norm, self.compute_output_shape(input_shape))

    def call(self, x, resolution=None, training=None):
        if self._padding():
            pad = (self._padding(), self._padding())
            x = ops.pad(x, ((0, 0), pad, pad, (0, 0)))
        if self.subsample > 1:
            x = x[:, :: self.subsample, :: self.subsample]
        x = self.norm(self.conv(x), resolution=resolution, training=training)
        return self.activation(x)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(self._conv_input(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "conv": keras.saving.serialize_keras_object(self.conv),
            "norm": keras.saving.serialize_keras_object(self.norm),
            "activation": keras.activations.serialize(self.activation),
            "subsample": self.subsample,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**_deserialize(config, ("conv", "norm")))

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

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: passed on to every `ConvBN`.

    Returns:
        Tensor (N, H', W', C').
    """

    def __init__(self, branch, shortcut=None, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.branch = list(branch)
        self.shortcut = shortcut
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        if isinstance(self.shortcut, keras.layers.Layer):
            build_once(self.shortcut, input_shape)
        for layer in self.branch:
            build_once(layer, input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, x, resolution=None, training=None):
        y = x
        for layer in self.branch:
            y = layer(y, resolution=resolution, training=training)
        if self.shortcut == "identity":
            y = y + x
        elif self.shortcut is not None:
            y = y + self.shortcut(x, resolution=resolution, training=training)
        return self.activation(y)

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
        }

    @classmethod
    def from_config(cls, config):
        return cls(**_deserialize(config, ("branch", "shortcut")))


@keras.saving.register_keras_serializable(package="rs_keras")
class MaxPool(keras.layers.Layer):
    """3x3 max pooling with stride 2 of a non-negative input, padded by 1 on every side.

    Keras' "same" would pad even sizes on the bottom and right only. Takes `resolution`
    and ignores it, so that a backbone is a plain list of layers.
    """

    def build(self, input_shape):
        self.built = True

    def call(self, x, resolution=None, training=None):
        # After a ReLU zeros do what PyTorch's -inf does, and stay finite when exported.
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.max_pool(x, 3, strides=2, padding="valid")

    def compute_output_shape(self, input_shape):
        n, h, w, c = input_shape
        return (n, h and (h + 1) // 2, w and (w + 1) // 2, c)


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
):
    """A `ConvBN` without bias, initialized as the reference does.

    Kernels are drawn from N(0, 2 / (k * k * filters)): He et al.'s fan-out rule for
    ResNets; MobileNetV2's depthwise kernels follow the same formula there, although
    it is not their fan-out.

    Args:
        filters: output channels (for a depthwise convolution also the input's).
        norm: function of a name, returning a normalization layer.
        name, norm_name: names of the convolution and of its normalization.
    """
    # See `ConvBN`: the stride of a 1x1 convolution is taken outside of it.
    subsample = strides if kernel_size == 1 else 1
    strides = strides // subsample
    common = {
        "strides": strides,
        # At stride 1 "same" is PyTorch's padding, without an op of its own.
        "padding": "same" if strides == 1 else "valid",
        "use_bias": False,
        "name": name,
    }
    initializer = keras.initializers.RandomNormal(
        stddev=math.sqrt(2 / (kernel_size * kernel_size * filters))
    )
    if depthwise:
        conv = keras.layers.DepthwiseConv2D(
            kernel_size, depthwise_initializer=initializer, **common
        )
    else:
        conv = keras.layers.Conv2D(
            filters, kernel_size, kernel_initializer=initializer, **common
        )
    return ConvBN(
        conv, norm(norm_name), activation, subsample=subsample, name=f"{name}_bn"
    )


def leaves(layers):
    """Convolutions, normalizations and plain layers of a list of blocks, in order."""
    for layer in layers:
        if isinstance(layer, ConvBN):
            yield from (layer.conv, layer.norm)
        elif isinstance(layer, ResidualBlock):
            yield from leaves(layer.branch)
            if isinstance(layer.shortcut, ConvBN):
                yield from leaves([layer.shortcut])
        else:
            yield layer


def build_once(layer, input_shape):
    """Builds a layer unless a reloaded configuration has built it already."""
    if not layer.built:
        layer.build(input_shape)


def _deserialize(config, names):
    return {
        key: keras.saving.deserialize_keras_object(value) if key in names else value
        for key, value in config.items()
    }

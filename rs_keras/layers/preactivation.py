"""The parts of low-bit ResNets that `ConvBN` does not have."""

import keras
from keras import ops

from rs_keras.layers import conv_bn


@keras.saving.register_keras_serializable(package="rs_keras")
class Preactivation(keras.layers.Layer):
    """`quantizer(relu(norm(x, resolution)))`, each part optional.

    Args:
        norm: `SwitchableBatchNormalization` followed by a ReLU, or None for neither.
        quantizer: `quant.quantizers.LQActivationQuantizer`, or None.
        bases: `quantization.Bases` of the quantizer.

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: passed on to `norm` and `bases`.

    Returns:
        Tensor (N, H, W, C).
    """

    def __init__(self, norm=None, quantizer=None, bases=None, **kwargs):
        super().__init__(**kwargs)
        self.norm = norm
        self.quantizer = quantizer
        self.bases = bases

    def build(self, input_shape):
        for part in (self.norm, self.quantizer):
            if part is not None:
                conv_bn.build_once(part, input_shape)

    def call(self, x, resolution=None, training=None):
        if self.norm is not None:
            x = ops.relu(self.norm(x, resolution=resolution, training=training))
        if self.quantizer is not None:
            x = self.quantizer(x, **self.bases.for_activations(resolution, training))
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        parts = {"norm": self.norm, "quantizer": self.quantizer, "bases": self.bases}
        return {
            **super().get_config(),
            **{k: keras.saving.serialize_keras_object(v) for k, v in parts.items()},
        }

    @classmethod
    def from_config(cls, config):
        return cls(**conv_bn.deserialize(config, ("norm", "quantizer", "bases")))


@keras.saving.register_keras_serializable(package="rs_keras")
class PoolShortcut(keras.layers.Layer):
    """Type A shortcut: average pooling, then channels of zeros behind the others.

    He et al., CVPR 2016, option A: a shortcut without parameters. Odd sizes are
    rounded up, as the strided convolution beside it does; the reference rounds them
    down, which makes the two unequal there.

    Args:
        filters: output channels.
        strides: window and stride of the pooling.

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: not used.

    Returns:
        Tensor (N, ceil(H / strides), ceil(W / strides), filters).
    """

    def __init__(self, filters, strides, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def build(self, input_shape):
        self.built = True

    def call(self, x, resolution=None, training=None):
        if self.strides > 1:
            x = ops.average_pool(x, self.strides, self.strides, padding="same")
        missing = self.filters - x.shape[-1]
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))

    def compute_output_shape(self, input_shape):
        n, h, w, _ = input_shape
        return (
            n,
            h and -(-h // self.strides),
            w and -(-w // self.strides),
            self.filters,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
        }


def shortcut_branch(conv, kind, filters, *, stride, channels, name):
    """The shortcut of a block: "identity" unless the shape changes.

    Args:
        conv: function that makes a `ConvBN`, as `conv_bn.conv_bn`.
        kind: "B" for a 1x1 convolution, "A" for `PoolShortcut`.
    """
    if stride == 1 and channels == filters:
        return "identity"
    if kind == "A":
        return PoolShortcut(filters, stride, name=f"{name}.downsample")
    return conv(
        filters,
        1,
        stride,
        name=f"{name}.downsample.0",
        norm_name=f"{name}.downsample.1",
    )

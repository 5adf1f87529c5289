"""What stands before the convolutions of low-bit ResNets, and beside them."""

import keras
from keras import ops

from rs_keras.layers import conv_bn
from rs_keras.layers import pooling
from rs_keras.layers import quantization


@keras.saving.register_keras_serializable(package="rs_keras")
class Preactivation(keras.layers.Layer):
    """`quantizer(relu(norm(x, resolution)))`, each part optional.

    Args:
        norm: `SwitchableBatchNormalization` followed by a ReLU, or None for neither.
        quantizer: as in `ConvBN`.
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
        return quantization.quantized(x, self, resolution, training)

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


def shortcut_branch(conv, kind, filters, *, stride, channels, name, low_bit):
    """The shortcut of a block: "identity" unless the shape changes.

    Args:
        conv: function that makes a `ConvBN`, as `conv_bn.conv_bn`.
        kind: "B" for a 1x1 convolution, "A" for `PoolShortcut`. The input of such a
            block comes from a ReLU.
    """
    if stride == 1 and channels == filters:
        return "identity"
    if kind == "A":
        # Without a stride nothing is averaged, and no new values arise.
        new = low_bit is not None and stride > 1
        return pooling.PoolShortcut(
            filters,
            stride,
            low_bit.of_range(f"{name}.downsample.range", signed=False) if new else None,
            low_bit and low_bit.bases,
            name=f"{name}.downsample",
        )
    return conv(
        filters,
        1,
        stride,
        name=f"{name}.downsample.0",
        norm_name=f"{name}.downsample.1",
    )

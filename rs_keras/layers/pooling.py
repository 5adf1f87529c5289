"""Pooling: behind the first convolution, and as a shortcut."""

import keras
from keras import ops

from rs_keras.layers import conv_bn
from rs_keras.layers import quantization


@keras.saving.register_keras_serializable(package="rs_keras")
class MaxPool(keras.layers.Layer):
    """3x3 max pooling with stride 2 of a non-negative input.

    Takes `resolution` and ignores it, so that a backbone is a plain list of layers.

    Args:
        padding: "torch" for 1 on every side; "same" for Keras' (TensorFlow's), which
            pads even sizes on the bottom and right only.
    """

    def __init__(self, padding="torch", **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def build(self, input_shape):
        self.built = True

    def call(self, x, resolution=None, training=None):
        if self.padding == "same":
            return ops.max_pool(x, 3, strides=2, padding="same")
        # After a ReLU zeros do what PyTorch's -inf does, and stay finite when exported.
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.max_pool(x, 3, strides=2, padding="valid")

    def compute_output_shape(self, input_shape):
        n, h, w, c = input_shape
        return (n, h and (h + 1) // 2, w and (w + 1) // 2, c)

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="rs_keras")
class PoolShortcut(keras.layers.Layer):
    """Type A shortcut: average pooling, then channels of zeros behind the others.

    He et al., CVPR 2016, option A: a shortcut without parameters. Odd sizes are
    rounded up, as the strided convolution beside it does; the reference rounds them
    down, which makes the two unequal there.

    Args:
        filters: output channels.
        strides: window and stride of the pooling.
        quantizer: `quant.tfmot.RangeQuantizer` of what pooling leaves, or None.
        bases: `quantization.Bases`, with a quantizer.

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: for the quantizer.

    Returns:
        Tensor (N, ceil(H / strides), ceil(W / strides), filters).
    """

    def __init__(self, filters, strides, quantizer=None, bases=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides
        self.quantizer = quantizer
        self.bases = bases

    def build(self, input_shape):
        if self.quantizer is not None:
            conv_bn.build_once(self.quantizer, input_shape)
        self.built = True

    def call(self, x, resolution=None, training=None):
        if self.strides > 1:
            x = ops.average_pool(x, self.strides, self.strides, padding="same")
        x = quantization.quantized(x, self, resolution, training)
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
            "quantizer": keras.saving.serialize_keras_object(self.quantizer),
            "bases": keras.saving.serialize_keras_object(self.bases),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**conv_bn.deserialize(config, ("quantizer", "bases")))

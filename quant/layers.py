"""Stock layers whose kernel is read through a quantizer.

With `weight_quantizer=None` each is exactly the Keras layer that it derives from.
"""

import keras
from keras import layers
from keras import ops
from keras import saving

from quant import lq_math


class _QuantizedKernel:
    """Mixin for a Keras layer with one `kernel` and an optional `bias`.

    The kernel stays a float32 weight, trained through the quantizer (straight-through);
    the convolution sees its levels, in the layer's compute dtype.
    """

    def __init__(self, *args, weight_quantizer=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight_quantizer = weight_quantizer

    def add_weight(self, *args, name=None, **kwargs):
        if name == "kernel" and self.weight_quantizer is not None:
            # Half precision would round the kernel before it is quantized.
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        if self.weight_quantizer is not None and not self.weight_quantizer.built:
            self.weight_quantizer.build(self._channels_last(self.kernel.shape))

    def call(self, inputs, update=None):
        """The stock layer's output; `update` as in `LQWeightQuantizer`."""
        if self.weight_quantizer is None:
            return super().call(inputs)
        outputs = self._apply(inputs, self.quantized_kernel(update=update))
        if self.bias is not None:
            outputs = outputs + self._shaped_bias()
        return outputs if self.activation is None else self.activation(outputs)

    def quantized_kernel(self, update=None):
        """The kernel that the layer computes with, in its compute dtype."""
        if self.weight_quantizer is None:
            return ops.cast(self.kernel, self.compute_dtype)
        shape = self.kernel.shape
        kernel = ops.reshape(self.kernel, self._channels_last(shape))
        kernel = self.weight_quantizer(kernel, update=update)
        return ops.cast(ops.reshape(kernel, shape), self.compute_dtype)

    def fitted_basis(self, kernel, steps=20):
        """The basis (K, C) that some steps of QEM find for a kernel.

        Args:
            kernel: array of the shape of `self.kernel`.
            steps: number of steps; each is a local improvement.
        """
        kernel = ops.convert_to_tensor(kernel, dtype="float32")
        kernel = ops.reshape(kernel, self._channels_last(kernel.shape))
        # From the spread of this kernel, whatever it was initialized with.
        axes = tuple(range(len(kernel.shape) - 1))
        deviation = ops.sqrt(ops.mean(ops.square(kernel), axis=axes) + 1e-12)
        # fan_out = 2 is a deviation of 1.
        unit = lq_math.initial_basis("weights", self.weight_quantizer.bits, fan_out=2)
        basis = unit[:, None] * deviation
        for _ in range(steps):
            basis = lq_math.fit_basis(kernel, basis, "weights")
        return basis

    def get_config(self):
        quantizer = keras.saving.serialize_keras_object(self.weight_quantizer)
        return {**super().get_config(), "weight_quantizer": quantizer}

    @classmethod
    def from_config(cls, config):
        quantizer = config["weight_quantizer"]
        if isinstance(quantizer, dict):
            quantizer = keras.saving.deserialize_keras_object(quantizer)
        return cls(**{**config, "weight_quantizer": quantizer})

    def _channels_last(self, shape):
        """The shape of the kernel as the quantizer sees it: (..., channels)."""
        return tuple(shape)

    def _shaped_bias(self):
        if getattr(self, "data_format", "channels_last") == "channels_first":
            return ops.reshape(self.bias, (1, -1, 1, 1))
        return self.bias


@saving.register_keras_serializable(package="quant")
class QuantConv2D(_QuantizedKernel, layers.Conv2D):
    """`keras.layers.Conv2D` with a quantized kernel, a basis per output channel.

    Args:
        weight_quantizer: `LQWeightQuantizer`, or None for the stock layer.
        Others as in `keras.layers.Conv2D`.

    Call arguments:
        inputs: tensor (N, H, W, C).
        update: passed on to the quantizer.
    """

    def _apply(self, inputs, kernel):
        return self.convolution_op(inputs, kernel)


@saving.register_keras_serializable(package="quant")
class QuantDepthwiseConv2D(_QuantizedKernel, layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a quantized kernel, a basis per channel.

    The reference quantizes all channels of a depthwise kernel with one basis, by
    mistake (it takes their number from the wrong axis).

    Args and call arguments as in `QuantConv2D`.
    """

    def _apply(self, inputs, kernel):
        return ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def _channels_last(self, shape):
        return (*shape[:2], 1, shape[2] * shape[3])


@saving.register_keras_serializable(package="quant")
class QuantDense(_QuantizedKernel, layers.Dense):
    """`keras.layers.Dense` with a quantized kernel, a basis for each unit.

    Args and call arguments as in `QuantConv2D`; inputs (..., features).
    """

    def _apply(self, inputs, kernel):
        return ops.matmul(inputs, kernel)

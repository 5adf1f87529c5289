"""The bridge to tensorflow-model-optimization (tfmot), in both directions.

LQ-Nets for tf_keras: `quantize_annotate_layer(layer, LQQuantizeConfig(2))`, then
`quantize_apply(model)`. And uniform quantization (Jacob et al., CVPR 2018, section 3)
for Keras 3: `RangeWeightQuantizer` and `RangeQuantizer`, for what LQ-Nets leave float.

TensorFlow only. Import it where it is needed: before loading a model with such layers.
"""

import os
import warnings

import keras
import numpy as np
from keras import ops

from quant import lq_math
from quant import quantizers

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "quant.tfmot needs the TensorFlow backend. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}"
    )

import tensorflow as tf
import tf_keras

# Importing tfmot sets TF_USE_LEGACY_KERAS for good and then looks into `tf.keras`: the
# first look decides which Keras that is for everybody.
dir(vars(tf)["keras"])
_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", ".*distutils")  # it compares versions by them
    import tensorflow_model_optimization
os.environ.pop("TF_USE_LEGACY_KERAS", None)
os.environ.update({"TF_USE_LEGACY_KERAS": _LEGACY} if _LEGACY is not None else {})

_tfmot = tensorflow_model_optimization.quantization.keras
_FLOAT_BITS, _MOMENTUM = 32, 0.9
_KERNELS = ("kernel", "depthwise_kernel")
_NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "softplus", "exponential", "softmax")


@tf_keras.saving.register_keras_serializable(package="quant")
class LQQuantizer(_tfmot.quantizers.Quantizer):
    """LQ-Nets' quantizer (Zhang et al., ECCV 2018) as a tfmot `Quantizer`.

    It does what those of `quant.quantizers` do by default: in training a tensor is
    quantized with the stored basis, which then follows the one fitted to the tensor.

    Args:
        bits: 1..8, else ValueError.
        kind: "weights" (a basis for each output channel) or "activations" (one basis).
    """

    def __init__(self, bits, kind="weights"):
        lq_math.check_bits(bits)
        lq_math.check_kind(kind)
        self.bits, self.kind = int(bits), kind

    def build(self, tensor_shape, name, layer):
        """The variables "basis", "biased", "fits", as weights of a tf_keras layer."""
        fan_out, channels = None, 1
        if self.kind == "weights":
            *sides, inputs, channels = tensor_shape
            channels *= inputs if name == "depthwise_kernel" else 1
            fan_out = np.prod(sides, dtype=int) * channels
        initial = lq_math.initial_basis(self.kind, self.bits, fan_out)
        initial = np.repeat(initial[:, None], channels, axis=1)
        values = {"basis": initial, "biased": 0 * initial, "fits": np.float32(0)}
        return {
            key: layer.add_weight(
                name=f"{name}_{key}",
                shape=value.shape,
                initializer=lambda *_, value=value, **__: tf.constant(value),
                trainable=False,
                # Replicas of a distribution strategy keep one basis in common.
                aggregation=tf.VariableAggregation.MEAN,
                experimental_autocast=False,
            )
            for key, value in values.items()
        }

    def __call__(self, inputs, training, weights, **kwargs):
        inputs = tf.convert_to_tensor(inputs)
        x = tf.cast(inputs, "float32")
        basis = tf.convert_to_tensor(weights["basis"])
        if self.kind == "weights":
            x = tf.reshape(x, (-1, basis.shape[1]))
        if training:
            new = lq_math.fit_basis(x, basis, self.kind)
            average = _MOMENTUM * weights["biased"] + (1 - _MOMENTUM) * new
            fits = weights["fits"].assign_add(1.0)
            weights["biased"].assign(average)
            weights["basis"].assign(average / (1 - _MOMENTUM**fits))
        y = lq_math.quantize(x, basis, self.kind)
        return tf.cast(tf.reshape(y, tf.shape(inputs)), inputs.dtype)

    def get_config(self):
        return dict(vars(self))


@tf_keras.saving.register_keras_serializable(package="quant")
class LQQuantizeConfig(_tfmot.QuantizeConfig):
    """How tfmot quantizes a tf_keras layer the way of LQ-Nets.

    Models are saved as SavedModel or .h5: .keras files of tfmot do not load. The input
    of an annotated layer that comes from one without is quantized to 8 bits.

    Args:
        weight_bits: 1..8 for the kernels of the layer, or 32 for none.
        activation_bits: 1..8 for the output of the layer, which must not be negative
            (best a ReLU), or 32 for none.

    Raises:
        ValueError: bits out of range; from `quantize_apply`, a layer that does not fit.
    """

    def __init__(self, weight_bits, activation_bits=_FLOAT_BITS):
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        for bits in {weight_bits, activation_bits} - {_FLOAT_BITS}:
            lq_math.check_bits(bits)

    def get_weights_and_quantizers(self, layer):
        names = self._kernels(layer)
        elsewhere = self.activation_bits != _FLOAT_BITS and not layer.weights
        if not names and self.weight_bits != _FLOAT_BITS and not elsewhere:
            raise ValueError(
                "`weight_bits` need a layer with a kernel, output channels last. "
                f"Received: {type(layer).__name__} {layer.name}"
            )
        return [(getattr(layer, k), LQQuantizer(self.weight_bits)) for k in names]

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        for name, value in zip(self._kernels(layer), quantize_weights, strict=True):
            setattr(layer, name, value)

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        if self.activation_bits == _FLOAT_BITS:
            return []
        activation = getattr(getattr(layer, "activation", 0), "__name__", "relu")
        if activation not in _NOT_NEGATIVE:
            raise ValueError(
                "`activation_bits` need outputs that are not negative. "
                f"Received: {type(layer).__name__} {layer.name}"
            )
        return [LQQuantizer(self.activation_bits, "activations")]

    get_config = LQQuantizer.get_config

    def _kernels(self, layer):
        # The former's output channels are not last; the latter would not save.
        refused = any(k in type(layer).__name__ for k in ("Transpose", "Separable"))
        names = () if refused or self.weight_bits == _FLOAT_BITS else _KERNELS
        return [name for name in names if hasattr(layer, name)]


class _Range(keras.layers.Layer):
    def __init__(self, bits=8, **kwargs):
        # The arithmetic is float32 in every precision, so inputs are not cast down.
        super().__init__(**{"dtype": "float32", **kwargs, "autocast": False})
        if not isinstance(bits, int) or not 2 <= bits <= 16:
            raise ValueError(
                f"`bits` must be an integer from 2 to 16. Received: bits={bits!r}"
            )
        self.bits = bits

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "bits": self.bits}


@keras.saving.register_keras_serializable(package="quant")
class RangeWeightQuantizer(_Range):
    """Rounds a kernel to 2**bits - 1 equidistant values around 0.

    tfmot's `LastValueQuantizer`, symmetric and narrow, with a range for each channel of
    a convolution and one for all of a dense kernel, as tfmot and .tflite files have it.
    The range is that of the kernel at hand; tfmot infers with the one of the last step,
    which a kernel from elsewhere does not fit. So nothing is stored.

    Args:
        bits: 2..16, else ValueError.

    Call arguments:
        kernel: tensor with its output channels last.
        update: as in `LQWeightQuantizer`; without effect.

    Returns:
        float32 tensor as `kernel`, with a straight-through gradient.
    """

    def call(self, kernel, update=None):
        quantizers.check_update(update)
        quantizer = _tfmot.quantizers.LastValueQuantizer(
            self.bits, len(kernel.shape) == 4, symmetric=True, narrow_range=True
        )
        ends = {"min_var": _Unstored(-1e-12), "max_var": _Unstored(1e-12)}
        return quantizer(ops.cast(kernel, "float32"), True, ends)

    def affine(self, kernel):
        """(scale, 0) as in `RangeQuantizer.affine`; scale (C,) for a convolution."""
        axes = (0, 1, 2) if len(kernel.shape) == 4 else None
        largest = _Unstored(1e-12).assign(ops.max(ops.abs(kernel), axis=axes))
        return ops.convert_to_numpy(largest) / (2 ** (self.bits - 1) - 1), 0


@keras.saving.register_keras_serializable(package="quant")
class RangeQuantizer(_Range):
    """Rounds a tensor to 2**bits equidistant values of a range that it tracks.

    tfmot's `MovingAverageQuantizer`: an update moves the range towards the extremes of
    the tensor, 0 included, by 0.001 of the way, and quantizes with the new range.

    Args:
        bits: 2..16, else ValueError.
        initial_range: the range before the first update; tfmot's is (-6, 6). Without
            updates it stays: (0, 1) takes the uint8 values of x / 255 as they are.

    Call arguments:
        x: tensor.
        row: as in `LQActivationQuantizer`, whose place this may take; without effect.
        update: "collect" or "fit", which both move the range, or None, which does not.

    Returns:
        Tensor as x, in its dtype; its gradient is 1 within the range, and 0 outside.
    """

    def __init__(self, bits=8, initial_range=(-6.0, 6.0), **kwargs):
        super().__init__(bits, **kwargs)
        ends = np.array(initial_range)
        low, high = ends if ends.shape == (2,) and ends.dtype.kind in "if" else (0, 0)
        if not -np.inf < low <= 0 <= high < np.inf or low == high:
            raise ValueError(
                "`initial_range` must be two different numbers around 0. "
                f"Received: initial_range={initial_range!r}"
            )
        self.initial_range = float(low), float(high)
        self._quantizer = _tfmot.quantizers.MovingAverageQuantizer(
            bits, per_axis=False, symmetric=False, narrow_range=False
        )

    def build(self, input_shape):
        self.range = self._quantizer.build(None, "range", self)

    def add_weight(self, name, initializer, trainable, shape):
        # Called by tfmot, whose initializer, of Keras 2, gives -6 or 6.
        end = self.initial_range[name.endswith("_max")]
        return super().add_weight(
            name=name,
            shape=shape or (),
            initializer=lambda *_, **__: tf.constant(end, "float32"),
            trainable=trainable,
            autocast=False,
            aggregation="mean",  # of the replicas of a distribution strategy
        )

    def call(self, x, row=0, update=None):
        quantizers.check_update(update)
        ends = {key: variable.value for key, variable in self.range.items()}
        before = {key: tf.identity(end) for key, end in ends.items()}
        y = self._quantizer(ops.cast(x, "float32"), update is not None, ends)
        # An average would never forget the infinities of mixed_float16.
        for key, variable in self.range.items() if update is not None else ():
            new = tf.convert_to_tensor(ends[key])
            variable.assign(tf.where(tf.math.is_finite(new), new, before[key]))
        return ops.cast(y, x.dtype)

    def get_config(self):
        return {**super().get_config(), "initial_range": self.initial_range}

    def affine(self):
        """(scale, zero point): what the layer returns is `scale * (n - zero point)`.

        The integers n start at -2**(bits - 1), those of a kernel at one more.
        """
        low, high = map(ops.convert_to_numpy, self.range.values())
        scale = (high - low) / (2**self.bits - 1)
        return float(scale), int(0.5 - low / scale) - 2 ** (self.bits - 1)


class _Unstored:
    """Takes the place of a variable: tfmot uses what `assign` returns."""

    def __init__(self, least):
        self.least = least

    def assign(self, value, name=None):
        # XLA makes NaN of a range of width 0. And rounding may leave the largest weight
        # outside of the range that it is the end of: it, too, gets its gradient.
        return value + self.least

"""Any Keras classifier as one whose resolution is chosen at run time."""

import keras
import numpy as np

from quant import layers as quant_layers
from rs_keras import resolutions as resolutions_lib
from rs_keras.layers import graph
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm
from rs_keras.models import classifier
from rs_keras.models import graph_quantization
from rs_keras.models import switchable_checks
from rs_keras.models import tracing

_QUANTIZED = {
    keras.layers.Conv2D: quant_layers.QuantConv2D,
    keras.layers.DepthwiseConv2D: quant_layers.QuantDepthwiseConv2D,
    keras.layers.Dense: quant_layers.QuantDense,
}


def make_switchable(
    keras_model,
    resolutions,
    preprocessing=None,
    *,
    num_classes=None,
    weight_bits=32,
    activation_bits=32,
    basis_updates="once",
    activation_basis="shared",
    synchronized=False,
    dtype=None,
    class_names=None,
):
    """A resolution-switchable copy of a Keras classifier.

    Each batch normalization becomes a `SwitchableBatchNormalization`, every row of
    which starts as the original, whose momentum and epsilon it keeps; everything else
    is shared. The layers and their paddings are those of the original, the input may be
    of any size: at every resolution the copy computes what the original graph computes
    for an image of that size. A softmax at the end is taken off: all networks here
    return logits.

    Args:
        keras_model: functional or Sequential model of Keras' own layers, built, with or
            without trained weights, from an RGB image to the logits or probabilities of
            classes: `keras.applications.MobileNetV3Small(...)`, say. Models may be
            nested in it. It is left as it is.
        resolutions: distinct positive ints, in pixels.
        preprocessing: what stands in front of `keras_model`, whose input is then RGB
            0..255: a layer or a function of a tensor, such as
            `keras.applications.resnet_v2.preprocess_input`; None if the model scales
            its images itself.
        num_classes: number of logits; with another than that of the model the head
            starts anew. Default: that of the model.
        weight_bits: 1..8 (LQ-Nets) for kernels of convolutions and dense layers, but
            for those of the first convolution and of the head; 32 for none. Layers
            without a quantized counterpart (separable convolutions) stay float.
        activation_bits: 1..8, with quantized weights, for what a ReLU gives to
            quantized layers; 32 for none.
        basis_updates, activation_basis: see `quantization.Bases`.
        synchronized: batch normalization over all devices of a `tf.distribute`
            strategy.
        dtype: dtype policy of all layers, as "mixed_float16"; default: each its own.
        class_names: names of the classes, kept with the model.

    Returns:
        `Classifier`, not compiled.

    Raises:
        ValueError: the network cannot be switched, or an argument breaks these rules;
            the message names the layers.
    """
    resolutions = resolutions_lib.check_resolutions(resolutions)
    low_bit = quantization.quantization(
        resolutions,
        1,
        weight_bits,
        activation_bits,
        basis_updates=basis_updates,
        activation_basis=activation_basis,
    )
    replace = _Replacement(resolutions, low_bit, synchronized, dtype)
    trace = tracing.Trace(
        keras_model, preprocessing, replace, switchable_checks.check_layer
    )
    switchable_checks.check_norms(trace)
    head, head_weights = trace.take_head(num_classes)
    name = tracing.clean(keras_model.name)
    if activation_bits != quantization.FLOAT_BITS:
        graph_quantization.quantize_activations(trace, low_bit)
    block = graph.Graph(
        *trace.pruned(),
        bases=low_bit and low_bit.bases,
        name=f"{name}_graph",
        # Its layers cast for themselves; images 0..255 do not fit into bfloat16.
        dtype="float32",
    )
    minimum = switchable_checks.minimum_resolution(block, resolutions)
    model = classifier.Classifier(
        [block],
        head,
        resolutions,
        scaling="none",
        class_names=class_names,
        minimum_resolution=minimum,
        name=name,
        dtype=replace.policy,
    )
    replace.copy_weights()
    if head_weights is not None:
        head.set_weights(head_weights)
    return model


class _Replacement:
    """Makes the layer that takes the place of one of the original."""

    def __init__(self, resolutions, low_bit, synchronized, dtype):
        self._resolutions = resolutions
        self._low_bit = low_bit
        self._synchronized = synchronized
        self._dtype = dtype
        self.policy = dtype  # of the network: that of its first normalization
        self._made = []
        self._first = True

    def __call__(self, layer, name):
        """A layer called `name`, whose weights are copied later."""
        found = self._new(layer, name)
        constant = isinstance(layer, keras.layers.Normalization)
        if isinstance(layer, keras.layers.Layer) and not constant:
            self._made.append((layer, found))
        return found

    def copy_weights(self):
        for layer, found in self._made:
            if isinstance(found, switchable_norm.SwitchableBatchNormalization):
                _copy_norm(layer, found)
            elif quantization.is_quantized(found):
                kernel, *others = layer.get_weights()
                basis = np.array(found.fitted_basis(kernel))[None]
                kept = found.weight_quantizer.get_weights()[1:]
                found.set_weights([kernel, *others, basis, *kept])
            elif found.built:  # what stands behind the head is not
                found.set_weights(layer.get_weights())

    def _new(self, layer, name):
        config = {**layer.get_config(), "name": name}
        if self._dtype is not None:
            config["dtype"] = self._dtype
        if isinstance(layer, keras.layers.Normalization):
            return _constant_normalization(layer, config)
        if isinstance(layer, keras.layers.SeparableConv2D):
            self._first = False
        if isinstance(layer, keras.layers.BatchNormalization):
            self.policy = self.policy or layer.dtype_policy
            config["synchronized"] |= self._synchronized
            return _switchable_norm(config, self._resolutions)
        counterpart = _QUANTIZED.get(type(layer))
        if counterpart is None or self._low_bit is None:
            return type(layer).from_config(config)
        if self._first:
            self._first = False
            return type(layer).from_config(config)
        quantizer = self._low_bit.of_kernel(f"{name}.weight_quant")
        return counterpart.from_config({**config, "weight_quantizer": quantizer})


def _constant_normalization(layer, config):
    """A layer of images, as one whose numbers are part of its configuration.

    Those that it was adapted to are state beside its weights, which copies would lose.
    """
    if layer.input_mean is None and layer.built:
        for name, value in (("mean", layer.mean), ("variance", layer.variance)):
            value = np.asarray(value)
            config[name] = float(value) if value.size == 1 else value.ravel().tolist()
    return type(layer).from_config(config)


def _switchable_norm(config, resolutions):
    if config["axis"] not in (-1, 3):
        raise ValueError(
            "Batch normalization must be over the last axis (channels_last). "
            f"Received: {config['name']} with axis={config['axis']}"
        )
    return switchable_norm.SwitchableBatchNormalization(
        resolutions,
        momentum=config["momentum"],
        epsilon=config["epsilon"],
        # As Keras' own layer does it.
        unbiased_moving_variance=False,
        synchronized=config["synchronized"],
        center=config["center"],
        scale=config["scale"],
        gamma_initializer=config["gamma_initializer"],
        beta_initializer=config["beta_initializer"],
        name=config["name"],
        dtype=config["dtype"],
        trainable=config["trainable"],
    )


def _copy_norm(layer, found):
    pairs = [(layer.moving_mean, found.moving_mean)]
    pairs.append((layer.moving_variance, found.moving_variance))
    if layer.center:
        pairs.append((layer.beta, found.beta))
    if layer.scale:
        pairs.append((layer.gamma, found.gamma))
    for source, stacked in pairs:
        stacked.assign(np.broadcast_to(np.array(source), stacked.shape))

"""A network as exports see it: what resolutions share, and one table of the rest."""

import keras
import numpy as np
import tensorflow as tf

from quant import quantizers
from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm
from rs_keras.models import classifier


class InferenceNetwork:
    """Inference of a `Classifier`, its private parameters given as an argument.

    A branch of the network reads its kernels, already quantized where they are, and
    one row of `table`, which holds what may be private to a resolution: parameters and
    statistics of batch normalization, and bases of activations.

    Args:
        model: `Classifier` of one or several resolutions.

    Attributes:
        resolutions: those of the model, descending.
        class_names: those of the model, or None.
        table: float32 (S, P), a row for each resolution; where one is shared by all, it
            is repeated.

    Raises:
        ValueError: another backend than TensorFlow; a model of several views, with
            weights that are not finite, or with names of classes that are not one line
            each.
    """

    def __init__(self, model):
        _check_model(model)
        self.resolutions = model.resolutions
        self.class_names = model.class_names
        self._branch = _single_branch(model)
        self._private, rows = [], []
        layers = zip(_leaves(model), _leaves(self._branch), strict=True)
        for source, layer in layers:
            private = _private_weights(source)
            if private:
                self._private += _private_weights(layer)
                rows += [self._rows(weight) for weight in private]
            else:
                _copy(source, layer)
        self._sizes = [row.shape[1] for row in rows]
        self.table = np.concatenate(rows, axis=1).astype("float32")

    def logits(self, images, private):
        """Logits (N, num_classes), float32, as a graph that does not know S.

        Args:
            images: (N, H, W, 3), RGB 0..255.
            private: (P,), a row of `table` or what lies between two rows.
        """
        parts = tf.split(private[None, :], self._sizes, axis=1)
        replaced = [
            (weight, part if len(weight.shape) == 2 else tf.reshape(part, weight.shape))
            for weight, part in zip(self._private, parts, strict=True)
        ]
        with keras.StatelessScope(state_mapping=replaced):
            return self._branch(images, training=False)

    def private_at(self, table, resolution):
        """The row (P,) of a resolution, a scalar tensor; interpolated between rows."""
        upper, lower, weight = switchable_norm.neighbours(resolution, self.resolutions)
        return weight * tf.gather(table, upper) + (1 - weight) * tf.gather(table, lower)

    def _rows(self, weight):
        """A stacked weight as (S, p)."""
        rows = np.reshape(weight, (weight.shape[0], -1))
        return np.broadcast_to(rows, (len(self.resolutions), rows.shape[1]))


def resolution_of(images):
    """round(sqrt(H * W)) of images (N, H, W, 3), a float32 scalar tensor."""
    shape = tf.cast(tf.shape(images), "float32")
    return tf.round(tf.sqrt(shape[1] * shape[2]))


def _check_model(model):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Exports need the TensorFlow backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    if model.views != 1:
        raise ValueError(
            "Networks of several views at one resolution cannot be exported. "
            f"Received: {model.name} with {model.views} views"
        )
    for name in model.class_names or ():
        if name.splitlines() != [name]:
            raise ValueError(
                f"Exports need names of classes of one line each. Received: {name!r}"
            )
    for layer in _leaves(model):
        for weight in _private_weights(layer) or layer.weights:
            if not np.all(np.isfinite(weight)):
                raise ValueError(
                    "Only a network whose weights are all finite can be exported. "
                    f"Received: {model.name} with {weight.path}"
                )


def _single_branch(model):
    """The same layers with one resolution and without quantizers of kernels."""
    single = {
        "resolutions": model.resolutions[:1],
        "rows": 1,  # of a quantizer of activations
        "weight_quantizer": None,
        # Its values are replaced: they need no draw from anybody's random numbers.
        "kernel_initializer": "zeros",
        "depthwise_initializer": "zeros",
    }

    def rewritten(node):
        if isinstance(node, list):
            return [rewritten(value) for value in node]
        if not isinstance(node, dict):
            return node
        return {k: single[k] if k in single else rewritten(v) for k, v in node.items()}

    return classifier.Classifier.from_config(rewritten(model.get_config()))


def _leaves(model):
    """The layers with weights, in the same order for the network and its branch."""
    return [*conv_bn.leaves(model.blocks), model.head, *model.ranges.values()]


def _private_weights(layer):
    """The weights that inference reads and that may differ between resolutions."""
    if isinstance(layer, switchable_norm.SwitchableBatchNormalization):
        return [layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]
    if isinstance(layer, quantizers.LQActivationQuantizer):
        return [layer.basis]
    return []


def _copy(source, layer):
    """The weights of a layer; a quantized kernel becomes its levels."""
    values = source.weights
    if getattr(source, "weight_quantizer", None) is not None:
        biases = [] if source.bias is None else [source.bias]
        values = [source.quantized_kernel(), *biases]
    for weight, value in zip(layer.weights, values, strict=True):
        weight.assign(value)

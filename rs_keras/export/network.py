"""A network as exports see it: what resolutions share, and one table of the rest."""

import keras
import numpy as np
import tensorflow as tf

from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm
from rs_keras.models import classifier


class InferenceNetwork:
    """Inference of a `Classifier`, its private parameters given as an argument.

    A branch of the network reads its kernels, already quantized where they are, and
    one row of `table`, which holds whatever is private to a resolution: parameters and
    statistics of batch normalization, private bases of activations.

    Args:
        model: `Classifier` of one or several resolutions.

    Attributes:
        resolutions: those of the model, descending.
        table: float32 (S, P), a row for each resolution; P is 0 where all is shared.

    Raises:
        ValueError: a model of several views, with weights that are not finite, or with
            names of classes that are not one line each.
    """

    def __init__(self, model):
        if model.views != 1:
            raise ValueError(
                "Networks of several views at one resolution cannot be exported. "
                f"Received: {model.name} with {model.views} views"
            )
        for name in model.class_names or ():
            if len(name.splitlines()) > 1:
                raise ValueError(
                    "Exports need names of classes of one line each. "
                    f"Received: {name!r}"
                )
        _check_finite(model)
        self.resolutions = model.resolutions
        self.class_names = model.class_names
        self._branch = _single_branch(model)
        self._private, rows = [], []
        layers = zip(_leaves(model), _leaves(self._branch), strict=True)
        for source, layer in layers:
            values = {weight.name: weight for weight in source.weights}
            if getattr(source, "weight_quantizer", None) is not None:
                values["kernel"] = source.quantized_kernel()
            for weight in layer.weights:
                value = values[weight.name]
                if weight.shape == value.shape:
                    weight.assign(value)
                else:
                    self._private.append(weight)
                    rows.append(np.reshape(value, (len(self.resolutions), -1)))
        self._sizes = [row.shape[1] for row in rows]
        empty = np.zeros((len(self.resolutions), 0))
        self.table = np.concatenate([empty, *rows], axis=1).astype("float32")

    def logits(self, images, private):
        """Logits (N, num_classes), float32, as a graph that does not know S.

        Args:
            images: (N, H, W, 3), RGB 0..255.
            private: (P,), a row of `table` or what lies between two rows.
        """
        replaced = []
        if self._private:
            parts = tf.split(private[None, :], self._sizes, axis=1)
            for variable, part in zip(self._private, parts, strict=True):
                if len(variable.shape) != 2:
                    part = tf.reshape(part, variable.shape)
                replaced.append((variable, part))
        with keras.StatelessScope(state_mapping=replaced):
            return self._branch(images, training=False)

    def private_at(self, table, resolution):
        """The row (P,) of a resolution, a scalar tensor; interpolated between rows."""
        upper, lower, weight = switchable_norm.neighbours(resolution, self.resolutions)
        return weight * tf.gather(table, upper) + (1 - weight) * tf.gather(table, lower)


def resolution_of(images):
    """round(sqrt(H * W)) of images (N, H, W, 3), a float32 scalar tensor."""
    shape = tf.cast(tf.shape(images), "float32")
    return tf.round(tf.sqrt(shape[1] * shape[2]))


def _single_branch(model):
    """The same layers with one resolution and without quantizers of kernels."""
    single = {
        "resolutions": model.resolutions[:1],
        "rows": 1,  # of a quantizer of activations
        "weight_quantizer": None,
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


def _check_finite(model):
    for variable in model.weights:
        if not np.all(np.isfinite(variable)):
            raise ValueError(
                "Only a network whose weights are all finite can be exported. "
                f"Received: {model.name} with {variable.path}"
            )

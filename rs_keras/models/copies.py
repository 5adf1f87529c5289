"""Copies of a classifier that differ from it in something."""

import numpy as np

from quant import quantizers
from rs_keras import resolutions as resolutions_lib
from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm
from rs_keras.models import classifier


def rewritten(node, values, change=lambda node: node):
    """A configuration with other values of some keys, at any depth.

    Args:
        values: {key: its value}.
        change: function of each dict, applied before its values are looked at.
    """
    if isinstance(node, list):
        return [rewritten(value, values, change) for value in node]
    if not isinstance(node, dict):
        return node
    return {
        k: values[k] if k in values else rewritten(v, values, change)
        for k, v in change(node).items()
    }


def with_resolutions(model, added, interpolation=resolutions_lib.interpolation):
    """A copy of a classifier with a row for each of some more resolutions.

    What is private to a resolution (gamma, beta, mean and variance of batch
    normalization, private bases of activations, alpha) is for those mixed from the rows
    of `model`. A batch normalization that all resolutions share stays as it is.

    Args:
        model: `Classifier` of one view; is left as it is.
        added: positive ints; those that the model has are passed over.
        interpolation: the rule, as `resolutions.interpolation`.

    Returns:
        `Classifier`, not compiled.

    Raises:
        ValueError: the model has several views, or a resolution is too small.
    """
    if model.views > 1:
        raise ValueError(
            "Networks of several views have one resolution; none can be added. "
            f"Received: {model.name} with {model.views} views"
        )
    old = model.resolutions
    new = {*old, *map(model.check_resolution, added)}
    new = resolutions_lib.check_resolutions(new)

    config = model.get_config()
    private = _has_private_bases(config)

    def change(node):
        if private and node.get("class_name") == "LQActivationQuantizer":
            node = {**node, "config": {**node["config"], "rows": len(new)}}
        if _items(node.get("resolutions", ())) == old:
            node = {**node, "resolutions": new}
        return node

    copy = classifier.Classifier.from_config(rewritten(config, {}, change))
    mixture = [interpolation(resolution, old) for resolution in new]
    for source, layer in zip(layers(model), layers(copy), strict=True):
        layer.set_weights(_mixed(source, layer, mixture))
    copy.alpha.assign(_mix(np.array(model.alpha), mixture))
    return copy


def changed(model, change):
    """A copy with the same weights, some of whose layers are others.

    Args:
        model: `Classifier`.
        change: as of `rewritten`.
    """
    copy = type(model).from_config(rewritten(model.get_config(), {}, change))
    copy.set_weights(model.get_weights())
    return copy


def _has_private_bases(node):
    """Whether activations have a basis for each resolution, anywhere in a network."""
    if isinstance(node, dict):
        if node.get("activation_basis") == "private":
            return True
        node = list(node.values())
    return isinstance(node, list) and any(map(_has_private_bases, node))


def _items(value):
    """A sequence of a configuration, which Keras may have packed, as a tuple."""
    return tuple(value["items"] if isinstance(value, dict) else value)


def layers(model):
    """The layers with weights, in the same order for a network and its copies."""
    return [*conv_bn.leaves(model.blocks), model.head, *model.ranges.values()]


def _mixed(source, layer, mixture):
    """The weights of a layer with rows, each mixed from those of the source."""
    arrays = source.get_weights()
    shapes = [tuple(weight.shape) for weight in layer.weights]
    if [array.shape for array in arrays] == shapes:
        return arrays
    private = len(arrays)
    if isinstance(layer, quantizers.LQActivationQuantizer):
        private -= len(layer.collected)
    elif not isinstance(layer, switchable_norm.SwitchableBatchNormalization):
        raise TypeError(f"No rows are known of {layer!r}")
    rows = [_mix(array, mixture) for array in arrays[:private]]
    return rows + arrays[private:]


def _mix(array, mixture):
    """Rows `weight * array[upper] + (1 - weight) * array[lower]`."""
    rows = [
        array[upper]
        if upper == lower or weight == 1
        else weight * array[upper] + (1 - weight) * array[lower]
        for upper, lower, weight in mixture
    ]
    return np.stack(rows).astype(array.dtype)

"""Weights of the TensorFlow 1 reference of LQ-Nets with RS-Nets' private normalization.

Names there are those of tensorpack's variable scopes: `group0/block1/conv2/W` is our
`layer1.1.conv2`, and its batch normalization at 96 pixels is `.../conv2/bn096/gamma`.
"""

import re

import keras
import numpy as np

from quant import quantizers
from rs_keras.checkpoints import strict
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm

# ours -> tensorpack's
_NORM = {
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "mean/EMA",
    "moving_variance": "variance/EMA",
}
# The name of a layer within its block, or group -> its scope there.
_SCOPES = (
    (r"conv(\d)", r"conv\1"),
    (r"bn(\d)", r"conv\1/bn{resolution:03d}"),
    (r"downsample\.0", "convshortcut"),
    (r"downsample\.1", "convshortcut/bn{resolution:03d}"),
    (r"preact", "bn-preact{resolution:03d}/bn"),
    (r"last", "bn-last{resolution:03d}/bn"),
    (r"quant(\d|_last)", r"quant\1/ActivationQuantization/basis"),
)
_SHADOWS = ("biased", "local_step")


def load_variables(model, arrays):
    """Sets every weight of a quantized ResNet from {TF variable name: array}.

    Names are without the leading `imagenet/`. Strict both ways, except for the shadow
    variables of a basis' moving average, `.../basis/biased` and `.../basis/local_step`:
    where both are missing, the average goes on from the basis as if it had always been
    there (the reference would overwrite the basis with the first fit). Alpha and ranges
    of `rest_bits` are left as they are: the reference's evaluation has none.

    Args:
        model: `Classifier` of a ResNet with quantized weights, with the resolutions of
            the arrays.
        arrays: dict of arrays, kernels as (kh, kw, in, out), bases as (K, C).

    Raises:
        ValueError: the model is no quantized ResNet, or has views; or keys are missing,
            unexpected, of another shape, or hold values that are not finite. The model
            is then left unchanged.
    """
    if model.views > 1:
        raise ValueError(
            f"LQ-Nets' variables know no views. Received: views={model.views}"
        )
    bases = dict(_bases(model))
    if not bases:
        raise ValueError(
            "LQ-Nets' variables need a network with quantized weights. "
            f"Received: {model.name} with float weights"
        )
    arrays = {key: np.asarray(value) for key, value in arrays.items()}
    pairs = [{f"{scope}/{name}" for name in _SHADOWS} for scope in bases]
    # Both or none: of one that came alone the other is missing.
    shadows = {name for pair in pairs if pair.isdisjoint(arrays) for name in pair}
    strict.assign(
        list(_slots(model, bases)), arrays, optional=shadows, what="The variables"
    )
    for scope, quantizer in bases.items():
        if f"{scope}/{_SHADOWS[0]}" not in arrays:
            quantizer.settle()


def _slots(model, bases):
    """(key, variable, row, axes) of `strict.assign`."""
    for layer in conv_bn.leaves(model.blocks):
        if isinstance(layer, switchable_norm.SwitchableBatchNormalization):
            for row, resolution in enumerate(layer.keys):
                scope = _scope(layer.name).format(resolution=resolution)
                for ours, theirs in _NORM.items():
                    yield f"{scope}/{theirs}", getattr(layer, ours), row, None
        elif isinstance(layer, keras.layers.Conv2D):
            yield f"{_scope(layer.name)}/W", layer.kernel, None, None
    yield "linear/W", model.head.kernel, None, None
    yield "linear/b", model.head.bias, None, None
    for scope, quantizer in bases.items():
        for row in range(quantizer.rows):
            yield scope, quantizer.basis, row, None
            yield f"{scope}/biased", quantizer.biased, row, None
            yield f"{scope}/local_step", quantizer.fits, row, None


def _bases(model):
    """(name of its basis there, quantizer) of every quantizer."""
    for layer in conv_bn.leaves(model.blocks):
        if isinstance(layer, quantizers.LQActivationQuantizer):
            yield _scope(layer.name), layer
        elif quantization.is_quantized(layer):
            yield f"{_scope(layer.name)}/weight_quant/basis", layer.weight_quantizer


def _scope(name):
    """The scope there of a layer; a normalization's has a place for its resolution."""
    if name in ("conv1", "bn1"):
        return "conv0" if name == "conv1" else "conv0/bn{resolution:03d}"
    match = re.match(r"layer(\d)\.(?:(\d+)\.)?(.*)", name)
    if match is None:
        raise ValueError(
            f"LQ-Nets' variables are those of ResNets. Received: a model with {name}"
        )
    group, block, own = match.groups()
    outer = f"group{int(group) - 1}/" + ("" if block is None else f"block{block}/")
    pattern, scope = next(rule for rule in _SCOPES if re.fullmatch(rule[0], own))
    return outer + re.sub(pattern, scope, own)

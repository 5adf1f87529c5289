"""The names that the PyTorch reference of RS-Nets gives to our variables.

Layers carry the reference's names, so the map is a rule and not a list: a convolution
`layer1.0.conv1` is `layer1.0.conv1.module.weight` there, row i of a normalization
`layer1.0.bn1` is `layer1.0.bn1.bn_i.{weight,bias,running_mean,running_var}`.
"""

import keras

from rs_keras.layers import conv_bn
from rs_keras.layers import graph
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm

# ours -> the reference's
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

_FORWARD = {
    # (kh, kw, in, out) -> (out, in, kh, kw)
    keras.layers.Conv2D: (3, 2, 0, 1),
    # (kh, kw, channels, 1) -> (channels, 1, kh, kw)
    keras.layers.DepthwiseConv2D: (2, 3, 0, 1),
    # (in, out) -> (out, in)
    keras.layers.Dense: (1, 0),
}


def slots(model):
    """Every array of the reference's state dict, as (key, variable, row, axes).

    `row` is the row of a stacked variable or None; `axes` permutes our array into the
    reference's layout, None where both are the same.

    Raises:
        ValueError: the network is quantized, or was made switchable, which the
            reference knows nothing of.
    """
    if any(isinstance(block, graph.Graph) for block in model.blocks):
        raise ValueError(
            "The PyTorch reference has ResNets and MobileNetV2 only. "
            f"Received: {model.name}, a Keras network that was made switchable"
        )
    if any(map(quantization.is_quantized, conv_bn.leaves(model.blocks))):
        raise ValueError(
            "The PyTorch reference has float networks only. "
            f"Received: {model.name} with quantized weights"
        )
    yield "alpha", model.alpha, None, None
    for layer in conv_bn.leaves([*model.blocks, model.head]):
        if isinstance(layer, switchable_norm.SwitchableBatchNormalization):
            for ours, theirs in _NORM.items():
                for row in range(len(layer.keys)):
                    key = f"{layer.name}.bn_{row}.{theirs}"
                    yield key, getattr(layer, ours), row, None
        elif type(layer) in _FORWARD:
            key = f"{layer.name}.module"
            yield f"{key}.weight", layer.kernel, None, _FORWARD[type(layer)]
            if layer.use_bias:
                yield f"{key}.bias", layer.bias, None, None

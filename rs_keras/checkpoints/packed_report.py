"""What packing a network saves, and what it costs: bytes and rounding errors."""

import math

import numpy as np
from keras import ops

from quant import packing
from quant import quantizers
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization

_IMAGES = 4
_CELLS = 8  # of a generated image, along a side


def report(model, copy, rows, overhead):
    """Sizes, and how far a network is from its copy in the file.

    Args:
        model: `Classifier` that was packed.
        copy: the one that was read back.
        rows: (name, shape, encoding, channels) of each array of the file.
        overhead: bytes of the file that belong to no array.

    Returns:
        {"bytes": {"total", "header", "codes", "bases", "rest"}, "float32_bytes": of all
        weights but the quantizers' own, "ratio": of both, "quantized_weights": how many
        have codes, "bits_per_weight": of these codes, or None, "rounding": {"largest":
        error as a share of the largest value of its weight, "weight"}, "logits": {key:
        {"largest_difference", "largest", "same_class": share}} of generated images}.
    """
    of_quantizers = {name_of(w) for _, q in quantizers_of(model) for w in q.weights}
    parts = {"header": overhead, "codes": 0, "bases": 0, "rest": 0}
    quantized = 0
    for name, shape, encoding, channels in rows:
        count, bits = math.prod(shape), packing.bits_of(encoding)
        size = packing.encoded_bytes(count, encoding, channels)
        if bits:
            quantized += count
            parts["codes"] += packing.code_bytes(count, bits)
            size -= packing.code_bytes(count, bits)
        parts["bases" if bits or name in of_quantizers else "rest"] += size
    floats = [w for w in model.weights if name_of(w) not in of_quantizers]
    values = sum(math.prod(weight.shape) for weight in floats)
    total = sum(parts.values())
    return {
        "bytes": {"total": total, **parts},
        "float32_bytes": 4 * values,
        "ratio": 4 * values / total,
        "quantized_weights": quantized,
        "bits_per_weight": 8 * parts["codes"] / quantized if quantized else None,
        "rounding": _rounding(model, copy),
        "logits": {str(key): _logits(model, copy, key) for key in model.keys},
    }


def check_kernels(model, copy):
    """Raises ValueError unless both networks compute with the same quantized kernels.

    They do, whatever the bases are, as long as arithmetic is that of IEEE 754; but
    TensorFlow takes floats below 1e-38 for zero in some places.
    """
    for layer, other in zip(layers_of(model), layers_of(copy), strict=True):
        if quantization.is_quantized(layer):
            same = layer.quantized_kernel() == other.quantized_kernel()
            if not ops.convert_to_numpy(same).all():
                raise ValueError(
                    "Levels of a kernel must be floats that can be told apart. "
                    f"Received: those of {layer.name}"
                )


def layers_of(model):
    return [*conv_bn.leaves(model.blocks), model.head]


def quantizers_of(model):
    """(layer, quantizer) of a quantized kernel, (quantizer, itself) of activations."""
    for layer in layers_of(model):
        if isinstance(layer, quantizers.LQActivationQuantizer):
            yield layer, layer
        elif quantization.is_quantized(layer):
            yield layer, layer.weight_quantizer


def name_of(variable):
    """`layer/variable`: Keras puts more before it, or less in a reloaded model."""
    return "/".join(variable.path.split("/")[-2:])


def _rounding(model, copy):
    kernels = {
        id(layer.kernel)
        for layer in layers_of(model)
        if quantization.is_quantized(layer)
    }
    of_quantizers = {id(w) for _, q in quantizers_of(model) for w in q.weights}
    found = {"largest": 0.0, "weight": None}
    for weight, other in zip(model.weights, copy.weights, strict=True):
        # Those have codes, or belong to training.
        if id(weight) in kernels | of_quantizers:
            continue
        array = np.array(weight)
        largest = np.abs(array).max() or 1.0
        share = float(np.abs(array - np.array(other)).max() / largest)
        if share > found["largest"]:
            found = {"largest": share, "weight": name_of(weight)}
    return found


def _logits(model, copy, key):
    """Both networks' logits of a few images, which are patterns of coloured squares."""
    side = int(str(key).split("_")[0])
    generator = np.random.default_rng(0)
    squares = generator.integers(0, 256, (_IMAGES, _CELLS, _CELLS, 3))
    where = np.arange(side) * _CELLS // side
    images = squares[:, where][:, :, where].astype("uint8")
    before, after = (
        ops.convert_to_numpy(network(images, resolution=key))
        for network in (model, copy)
    )
    return {
        "largest_difference": float(np.abs(before - after).max()),
        "largest": float(np.abs(before).max()),
        "same_class": float((before.argmax(1) == after.argmax(1)).mean()),
    }

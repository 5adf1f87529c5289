"""The first and the last layers of a classifier: scaling, head, their quantizers."""

import keras

from quant import layers as quant_layers
from rs_keras import resolutions as resolutions_lib
from rs_keras.layers import quantization

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SCALINGS = ("unit", "imagenet", "none")


def rescaling(scaling, dtype):
    """The layer that scales RGB 0..255."""
    if scaling == "none":
        return keras.layers.Rescaling(1.0, name="rescaling", dtype="float32")
    if scaling == "unit":
        return keras.layers.Rescaling(1 / 255, name="rescaling", dtype=dtype)
    return keras.layers.Rescaling(
        [1 / (255 * std) for std in IMAGENET_STD],
        [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
        name="rescaling",
        dtype=dtype,
    )


def ranges(rest_bits, scaling):
    """The quantizers that no block has, with the ranges that they start from."""
    if rest_bits == quantization.FLOAT_BITS:
        return {}
    darkest, brightest = 0.0, 1.0
    if scaling == "imagenet":
        pairs = list(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
        darkest = min(-mean / std for mean, std in pairs)
        brightest = max((1 - mean) / std for mean, std in pairs)
    starts = {"image": (darkest, brightest), "pool": (0.0, 6.0), "logits": (-6.0, 6.0)}
    quantizer = quantization.tfmot_bridge().RangeQuantizer
    return {
        place: quantizer(rest_bits, ends, name=f"{place}.range")
        for place, ends in starts.items()
    }


def dense_head(num_classes, *, rest=None, name, **options):
    """The head of a classifier; ValueError unless there are at least two classes.

    Args:
        rest: `quantization.Rest` of the kernel, or None.
        Others as in `keras.layers.Dense`.
    """
    if not resolutions_lib.is_integer(num_classes) or num_classes < 2:
        raise ValueError(
            "`num_classes` must be an integer of at least 2. "
            f"Received: num_classes={num_classes!r}"
        )
    if rest is None:
        return keras.layers.Dense(int(num_classes), name=name, **options)
    quantizer = rest.of_kernel(f"{name}.weight_quant")
    return quant_layers.QuantDense(
        int(num_classes), weight_quantizer=quantizer, name=name, **options
    )

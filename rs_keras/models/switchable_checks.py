"""What a network that is made switchable must be, layer by layer."""

import keras

from rs_keras.layers import switchable_norm

# With these a network takes images of one size, or makes them so.
_FIXED_SIZE = ("Flatten", "Resizing", "CenterCrop", "RandomCrop")
_OTHER_NORMS = (
    "GroupNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "SpectralNormalization",
    "UnitNormalization",
)
_NORM_CONSTRAINTS = ("beta_constraint", "gamma_constraint")


def check_layer(layer, shapes):
    """Raises ValueError for a layer that a switchable network cannot have."""
    kind, named = type(layer).__name__, f"{layer.name} ({type(layer).__name__})"
    stock = isinstance(layer, keras.Model) or _is_stock(layer)
    if kind == "Lambda" or not stock:
        raise ValueError(
            "The layers of a network that is made switchable must be Keras' own, and "
            f"no Lambda. Received: {named}"
        )
    if isinstance(layer, keras.layers.Wrapper) and kind not in _OTHER_NORMS:
        raise ValueError(
            "A network that is made switchable must show its layers; a wrapper hides "
            f"one. Received: {named}"
        )
    if kind in _OTHER_NORMS:
        raise ValueError(
            "Only batch normalization can be private to a resolution; a network with "
            f"another normalization cannot be made switchable. Received: {named}"
        )
    known = all(side is not None for shape in shapes or () for side in shape[1:])
    if kind in _FIXED_SIZE and not (known and kind == "Flatten"):
        raise ValueError(
            "A network that is made switchable must take images of any size; a layer "
            "that fixes it (GlobalAveragePooling2D does not) cannot stay. "
            f"Received: {named}"
        )
    if not isinstance(layer, keras.layers.Layer):
        return
    for key, value in layer.get_config().items():
        refused = key.endswith("_regularizer") or key in _NORM_CONSTRAINTS
        if value is not None and refused:
            raise ValueError(
                "Regularizers of layers, and constraints of normalizations, have no "
                "part in the training of switchable networks; weight decay is the "
                f"optimizer's. Received: {named} with {key}"
            )


def _is_stock(layer):
    return type(layer).__module__.split(".")[0] == "keras"


def check_norms(trace):
    kind = switchable_norm.SwitchableBatchNormalization
    if not any(isinstance(operation, kind) for operation in trace.operations):
        raise ValueError(
            "A network without batch normalization has nothing that could be private "
            f"to a resolution. Received: {trace.name}"
        )


def minimum_resolution(block, resolutions):
    """The smallest image side that the strides and paddings of a network allow.

    Raises:
        ValueError: one of the resolutions is none that they allow.
    """
    large = 1024
    steps = list(block.steps((1, large, large, 3)))
    _check_any_size(steps, block.steps((1, large // 2, large // 2, 3)))
    shapes = [shape for _, _, shape in steps]
    last = min(s[1] for s in shapes if s and len(s) == 4 and s[1] > 1)
    stride = -(-large // last)
    for resolution in resolutions:
        reason = _refusal(block, resolution)
        if resolution < stride:
            reason = f"less than its strides, which come to {stride}"
        if reason is not None:
            raise ValueError(
                f"`resolutions` must be sizes that the network can take. "
                f"Received: {resolution}, {reason}"
            )
    low, high = stride, resolutions[-1]
    while low < high:
        middle = (low + high) // 2
        if _refusal(block, middle) is None:
            high = middle
        else:
            low = middle + 1
    return low


def _check_any_size(large, small):
    """Raises ValueError for an operation that makes images of one size of all.

    Args:
        large, small: the steps of a network for two sizes.
    """
    both = zip(large, small, strict=True)
    for (operation, inputs, output), (_, others, other) in both:
        spatial = output is not None and len(output) == 4 and output[1] > 1
        if spatial and output == other and inputs != others:
            raise ValueError(
                "A network that is made switchable must take images of any size. "
                f"Received: {operation.name}, which fixes it"
            )


def _refusal(block, side):
    """Why an image of a size does not come through; None if it does."""
    try:
        for operation, _, shape in block.steps((1, side, side, 3)):
            if shape and 0 in shape:
                return f"of which {operation.name} leaves nothing"
    except (ValueError, TypeError) as error:
        return f"which its layers cannot: {str(error).splitlines()[0]}"
    return None

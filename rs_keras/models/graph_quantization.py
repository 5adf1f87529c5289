"""Where quantizers of activations go in the graph of a Keras model."""

import keras

from rs_keras.layers import graph
from rs_keras.layers import quantization

# What of a tensor's levels makes nothing but such levels, and zeros.
_LEAVING_LEVELS = (
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.Dropout,
)


def quantize_activations(trace, low_bit):
    """Puts a quantizer behind each ReLU whose output a quantized layer takes.

    Args:
        trace: `tracing.Trace`, changed in place.
        low_bit: `quantization.Quantization`.

    Raises:
        ValueError: there is none.
    """
    nodes, trace.nodes = trace.nodes, []
    references = {0: {graph.TENSOR: 0}}
    placed = 0
    for number, (position, args, kwargs) in enumerate(nodes, 1):
        reference = trace.append(position, *graph.fill((args, kwargs), references))
        relu = trace.operations[position]
        if _is_relu(relu) and _feeds_quantized(trace.operations, nodes, number):
            name = trace.unique(f"{relu.name}.quant")
            trace.operations.append(low_bit.of_activations(name))
            end = len(trace.operations) - 1
            reference = trace.append(end, (reference,), {})
            placed += 1
        references[number] = reference
    trace.output = references[trace.output][graph.TENSOR]
    if not placed:
        raise ValueError(
            "`activation_bits` are for networks with a ReLU before a layer whose "
            f"kernel is quantized. Received: {trace.name}, which has none"
        )


def _feeds_quantized(operations, nodes, number):
    for following, (position, args, kwargs) in enumerate(nodes, 1):
        if number in graph.tensors((args, kwargs)):
            layer = operations[position]
            if quantization.is_quantized(layer):
                return True
            passed = isinstance(layer, _LEAVING_LEVELS)
            if passed and _feeds_quantized(operations, nodes, following):
                return True
    return False


def _is_relu(layer):
    """Whether an operation ends with a ReLU: of its own, or as its activation."""
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope and not layer.threshold
    relus = (keras.activations.relu, keras.activations.relu6)
    if isinstance(layer, keras.layers.Layer):
        return getattr(layer, "activation", None) in relus
    return type(layer).__name__ in ("Relu", "Relu6")

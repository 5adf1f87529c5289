"""How a .tflite file holds kernels that several signatures share: one copy of each."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from rs_keras.export import flatbuffer
from rs_keras.export import weight_sharing

# A bias divided by its factor may not be larger: half precision, in which GPUs compute,
# has room up to 65504 for the sums that it is added to.
LARGEST_BIAS = 1e4
# Against the largest of a kernel; a channel whose factor makes it smaller is as good as
# constant, whatever its sign.
NEGLIGIBLE = 1e-5
LARGEST_CODE = 127
# Codes of a channel up to which a copy of the kernel costs less than a product.
SMALL_CHANNEL = 16
# The first versions of DEQUANTIZE that take half precision, and a scale a channel.
_DEQUANTIZE_VERSIONS = {"float16": 3, "int8": 5}


def store_float(model, kernels, half=False):
    """Each kernel once, in float; factors become operators of their own.

    `act(f * K x + b)` is written `act(f * (K x + b / f))`, a convolution and a product.
    Where a factor is zero, or so small that b / f leaves half precision, `f * K x` and
    the sum with b are two operators behind the convolution.

    Args:
        model: `ModelT`, changed in place.
        kernels: list of `weight_sharing.SharedKernel` of that model.
        half: store float16.

    Returns:
        {"kernels", "copies": uses with an own copy, "products": convolutions with
        a product behind them, "sums": those with a sum as well}.
    """
    edits = _Edits(model)
    report = {"kernels": len(kernels), "copies": [], "products": 0, "sums": 0}
    for kernel in kernels:
        values = kernel.values
        if half:
            values = _half(values)
        buffer = flatbuffer.add_buffer(model, values)
        for use in kernel.uses:
            edits.store(use, 1, values.dtype.name, buffer)
            if np.any(use.factors != 1):
                summed = _multiply_behind(edits, use)
                report["products"] += 1
                report["sums"] += summed
    if half:
        _halve_tables(edits)
    edits.apply()
    return report


def store_int8(model, kernels):
    """Each kernel once, as int8 codes with a scale for each channel; computed in float.

    The codes are `round(127 K / max|K|)` of each channel, with the sign that its factor
    has at most resolutions; factors become part of the scales, which are positive.
    Where a resolution has another sign, the convolution is followed by a product with
    -1 and 1, or, which is less for a small kernel, reads a copy of the codes.

    Args and returns: as `store_float`.
    """
    edits = _Edits(model)
    report = {"kernels": len(kernels), "copies": [], "products": 0, "sums": 0}
    for kernel in kernels:
        codes = Codes(kernel)
        for use in kernel.uses:
            flips = codes.flips(use)
            product = bool(np.any(flips < 0)) and codes.per_channel > SMALL_CHANNEL
            if product:
                bias = bias_of(model, use) * flips
                _replace_bias(model, use, bias)
                edits.behind(use, "MUL", flips, schema.MulOptionsT())
                report["products"] += 1
                flips = np.ones_like(flips)
            buffer, copied = codes.buffer(model, flips)
            if copied:
                report["copies"].append(_describe(model, use, codes.size))
            edits.store(use, 1, "int8", buffer, codes.quantization(use))
    _halve_tables(edits)
    edits.apply()
    return report


class Codes:
    """The int8 codes of one kernel, which its uses share as far as signs agree."""

    def __init__(self, kernel):
        self._axis = kernel.axis
        peaks = kernel.peaks
        self._peaks = np.where(peaks > 0, peaks, 1.0)
        # Positive where no factor matters.
        self._signs = np.sign(sum(self._signs_of(use) for use in kernel.uses) + 0.5)
        self._shape = [1] * kernel.values.ndim
        self._shape[kernel.axis] = -1
        by = self._signs * LARGEST_CODE / self._peaks
        self._codes = np.rint(kernel.values * by.reshape(self._shape)).astype(np.int8)
        self._buffers = {}

    @property
    def size(self):
        return self._codes.size

    @property
    def per_channel(self):
        """How many codes a channel has."""
        return self._codes.size // len(self._peaks)

    def flips(self, use):
        """int8 (channels,): -1 where a use has the other sign, else 1."""
        return np.where(self._signs_of(use) * self._signs < 0, -1, 1).astype(np.int8)

    def signed(self, flips):
        """The codes (int8, in the shape of the kernel) with some channels negated."""
        return self._codes * flips.reshape(self._shape)

    def scales(self, use):
        """float32 (channels,), positive: what a code stands for."""
        strength = np.abs(use.factors) * self._peaks
        least = max(1e-9 * strength.max(), 1e-30)
        return (np.maximum(strength, least) / LARGEST_CODE).astype("float32")

    def quantization(self, use):
        return flatbuffer.quantized(self.scales(use), axis=self._axis)

    def buffer(self, model, flips):
        """(index of the codes with these flips, whether that is a copy made now)."""
        key = flips.tobytes()
        new = key not in self._buffers
        # The first is none: signs that no use has are not stored.
        copied = new and bool(self._buffers)
        if new:
            self._buffers[key] = flatbuffer.add_buffer(model, self.signed(flips))
        return self._buffers[key], copied

    def _signs_of(self, use):
        strength = np.abs(use.factors) * self._peaks
        matters = strength > NEGLIGIBLE * strength.max()
        return np.where(matters, np.sign(use.factors), 0)


class _Edits:
    """What is to stand before and behind the operators of a model's graphs."""

    def __init__(self, model):
        self.model = model
        self._before, self._behind = {}, {}

    def store(self, use, position, dtype, buffer, quantization=None):
        """Lets an operator read a constant input from a buffer, as float32.

        Args:
            use: has `graph` and `operator`.
            position: of the input.
            dtype: of the buffer.
        """
        graph, operator = use.graph, use.operator
        old = graph.tensors[operator.inputs[position]]
        index = flatbuffer.add_tensor(
            graph,
            old.name,
            old.shape,
            dtype,
            buffer=buffer,
            quantization=quantization,
        )
        if dtype != "float32":
            version = _DEQUANTIZE_VERSIONS[dtype]
            stored = index
            index = flatbuffer.add_tensor(graph, old.name, old.shape, "float32")
            options = schema.DequantizeOptionsT()
            self._before.setdefault(id(operator), []).append(
                flatbuffer.make_operator(
                    self.model, "DEQUANTIZE", [stored], [index], options, version
                )
            )
        inputs = np.array(operator.inputs)
        inputs[position] = index
        operator.inputs = inputs

    def behind(self, use, name, values, options):
        """Puts `name(output, values)` behind an operator, with its activation."""
        graph, operator = use.graph, use.operator
        added = self._behind.setdefault(id(operator), [])
        last = added[-1] if added else operator
        output = last.outputs[0]
        tensor = graph.tensors[output]
        inner = flatbuffer.add_tensor(
            graph, tensor.name, None, flatbuffer.dtype(tensor), like=tensor
        )
        constant = flatbuffer.add_constant(
            self.model, graph, tensor.name, values.astype("float32")
        )
        options.fusedActivationFunction = last.builtinOptions.fusedActivationFunction
        last.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        last.outputs = np.array([inner], np.int32)
        added.append(
            flatbuffer.make_operator(
                self.model, name, [inner, constant], [output], options
            )
        )

    def apply(self):
        for graph in self.model.subgraphs:
            operators = []
            for operator in graph.operators:
                operators += self._before.get(id(operator), [])
                operators.append(operator)
                operators += self._behind.get(id(operator), [])
            graph.operators = operators


def _multiply_behind(edits, use):
    """Takes the factors out of a convolution; True if its bias went, too."""
    model = edits.model
    bias = bias_of(model, use)
    factors = use.factors
    divisible = factors != 0
    inner = bias / np.where(divisible, factors, 1.0)
    summed = bool(
        np.any(~divisible & (bias != 0)) or np.abs(inner).max() > LARGEST_BIAS
    )
    if summed:
        inner = np.zeros_like(inner)
    _replace_bias(model, use, inner)
    edits.behind(use, "MUL", factors, schema.MulOptionsT())
    if summed:
        edits.behind(use, "ADD", bias, schema.AddOptionsT())
    return summed


def _halve_tables(edits):
    """Stores in half precision what is multiplied row by row: private parameters."""
    model = edits.model
    for graph in model.subgraphs:
        for operator in graph.operators:
            if flatbuffer.operator_name(model, operator) != "MUL":
                continue
            for position, index in enumerate(operator.inputs):
                values = flatbuffer.constant(model, graph, index)
                if values is not None and values.ndim == 2:
                    buffer = flatbuffer.add_buffer(model, _half(values))
                    place = weight_sharing.Use(graph, operator, None)
                    edits.store(place, position, "float16", buffer)


def bias_of(model, use):
    """The bias of an operator, float64 (channels,); zeros where it has none."""
    inputs = use.operator.inputs
    bias = None
    if len(inputs) > 2:
        bias = flatbuffer.constant(model, use.graph, inputs[2])
    return np.zeros(len(use.factors)) if bias is None else bias.astype("float64")


def _replace_bias(model, use, bias):
    operator = use.operator
    name = use.graph.tensors[operator.outputs[0]].name
    index = flatbuffer.add_constant(model, use.graph, name, bias.astype("float32"))
    operator.inputs = np.array([*operator.inputs[:2], index], np.int32)


def _half(values):
    largest = np.abs(values).max()
    if largest > np.finfo("float16").max:
        raise ValueError(
            "float16 has no room for some parameters of the network; choose another "
            f"precision. Received: values up to {largest:.3g}"
        )
    return values.astype("float16")


def _describe(model, use, size):
    """Which use has a copy of its own, for the report."""
    signature = next(
        definition.signatureKey.decode()
        for definition in model.signatureDefs
        if model.subgraphs[definition.subgraphIndex] is use.graph
    )
    name = use.graph.tensors[use.operator.outputs[0]].name.decode()
    return {"signature": signature, "kernel": name, "bytes": int(size)}

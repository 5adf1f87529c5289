"""How a .tflite file holds kernels that several signatures share: one copy of each."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from rs_keras.export import codes as codes_lib
from rs_keras.export import flatbuffer
from rs_keras.export import weight_sharing

# A bias divided by its factor may not be larger: half precision, in which GPUs compute,
# has room up to 65504 for the sums that it is added to.
LARGEST_BIAS = 1e4
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
        {"kernels": number, "copies": uses with an own copy, "products": convolutions
        with a product behind them, "sums": those with a sum as well, "code_error": the
        largest distance of a value from what its code stands for, as a share of its
        channel's largest, "level_error": the same for levels of low-bit quantizers}.
    """
    edits = _Edits(model)
    report = new_report(kernels)
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


def align_signs(model, kernels):
    """Makes factors agree in sign, for scales of integers are positive.

    Where a channel's factor is negative against those of most resolutions, the channel
    is negated, and a product with -1 behind the convolution, before its activation,
    turns it back. Small kernels stay: a copy is less.

    Args:
        model, kernels: as for `store_float`; both are changed.

    Returns:
        The number of products.
    """
    edits, products = _Edits(model), 0
    for kernel in kernels:
        codes = codes_lib.Codes(kernel)
        if codes.per_channel <= SMALL_CHANNEL:
            continue
        for use in kernel.uses:
            flips = codes.flips(use)
            if np.any(flips < 0):
                use.factors = use.factors * flips
                operator = use.operator
                values = flatbuffer.constant(model, use.graph, operator.inputs[1])
                values = values * codes.shaped(flips)
                buffer = flatbuffer.add_buffer(model, values.astype("float32"))
                edits.store(use, 1, "float32", buffer)
                _replace_bias(model, use, bias_of(model, use) * flips)
                edits.behind(use, "MUL", flips, schema.MulOptionsT())
                products += 1
    edits.apply()
    return products


def store_int8(model, kernels, book=False):
    """Each kernel once, as int8 codes with a scale for each channel; computed in float.

    The codes are `round(127 K / max|K|)` of each channel, with the sign that its factor
    has at most resolutions; factors become part of the scales, which are positive. A
    use that has another sign reads a copy of the codes: see `align_signs`.

    Args and returns: as `store_float`; book: see `codes.Codes`.
    """
    edits = _Edits(model)
    report = new_report(kernels)
    for kernel in kernels:
        codes = codes_lib.Codes(kernel, book)
        count_error(report, codes)
        for use in kernel.uses:
            buffer, copied = codes.buffer(model, codes.flips(use))
            if copied:
                report["copies"].append(describe(model, use, codes.size))
            edits.store(use, 1, "int8", buffer, codes.quantization(use))
    _halve_tables(edits)
    edits.apply()
    return report


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
    lost = np.any(~divisible & (bias != 0))
    summed = bool(lost or np.abs(inner).max() > LARGEST_BIAS)
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


def new_report(kernels):
    """What a way of storing kernels returns, with nothing counted yet."""
    counts = {"copies": [], "products": 0, "sums": 0}
    return {"kernels": len(kernels), **counts, "code_error": 0.0, "level_error": 0.0}


def count_error(report, codes):
    """Takes the error of a kernel's `codes.Codes` into a report."""
    name = "level_error" if codes.levels else "code_error"
    report[name] = max(report[name], codes.error)


def bias_of(model, use):
    """The bias of an operator, float64 (channels,); zeros where it has none."""
    inputs = use.operator.inputs
    bias = None
    if len(inputs) > 2 and inputs[2] >= 0:
        bias = flatbuffer.constant(model, use.graph, inputs[2])
        if bias is None:
            name = use.graph.tensors[inputs[2]].name.decode()
            raise ValueError(f"Biases must be constants. Received: {name}, computed")
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


def describe(model, use, size):
    """Which use has a copy of its own, for the report."""
    signature = next(
        definition.signatureKey.decode()
        for definition in model.signatureDefs
        if model.subgraphs[definition.subgraphIndex] is use.graph
    )
    name = use.graph.tensors[use.operator.outputs[0]].name.decode()
    return {"signature": signature, "kernel": name, "bytes": int(size)}

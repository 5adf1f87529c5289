"""A float .tflite made integer-only: 8-bit tensors, whose kernels signatures share.

LiteRT's 8-bit specification: activations have a scale and a zero point, kernels a scale
for each channel, biases 32 bits in units of input scale times kernel scale. The codes
of a kernel are computed once, from what its copies share (`kernel_storage.Codes`).
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from rs_keras.export import flatbuffer
from rs_keras.export import kernel_storage
from rs_keras.export import weight_sharing

_LOWEST, _HIGHEST = -128, 127
# {operator: its version for int8}
_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 12,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "PAD": 2,
    "SOFTMAX": 2,
}
# Their output is some of their input: it keeps the parameters.
_SAME = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD")
# A softmax has no other parameters.
_SOFTMAX = (1 / 256, _LOWEST)
# How far a bias may go: the sums of a channel need the rest of the 32 bits.
_LARGEST_BIAS = 2**30
# Of the output's step; a channel this weak is constant, and its multiplier is still
# one that every runtime can represent.
_WEAKEST = 2**-26


def make_integer(model, kernels, ranges):
    """Changes every tensor of a model to integers, in place.

    `image` becomes uint8, and stands for itself divided by 255; `logits` and
    `probabilities` become int8 with parameters of their own.

    Args:
        model: `ModelT` of static float signatures.
        kernels: list of `weight_sharing.SharedKernel` of that model.
        ranges: {signature: {tensor: (smallest, largest)}} of that model.

    Returns:
        As `kernel_storage.store_int8`.

    Raises:
        ValueError: an operator that has no rule here, named.
    """
    report = {"kernels": len(kernels), "copies": [], "products": 0, "sums": 0}
    uses = {}
    for kernel in kernels:
        codes = kernel_storage.Codes(kernel)
        for use in kernel.uses:
            uses[id(use.operator)] = (kernel, codes, use)
    for signature in model.signatureDefs:
        graph = model.subgraphs[signature.subgraphIndex]
        found = ranges[signature.signatureKey.decode()]
        _Graph(model, graph, found, uses, report).convert()
    return report


class _Graph:
    """One graph on its way from float to integers."""

    def __init__(self, model, graph, ranges, uses, report):
        self.model = model
        self.graph = graph
        self._ranges = ranges
        self._uses = uses
        self._report = report
        self._parameters = {}  # {tensor: (scale, zero point)}
        self._operators = []

    def convert(self):
        graph, operators = self.graph, self.graph.operators
        operators = self._take_image(operators)
        for operator in operators:
            name = flatbuffer.operator_name(self.model, operator)
            if name in weight_sharing.KERNEL_AXES:
                self._convolution(name, operator)
            elif name in _VERSIONS:
                self._plain(name, operator)
            else:
                tensor = graph.tensors[operator.outputs[0]].name.decode()
                raise ValueError(
                    "int8 has rules for convolutions, dense layers, pooling, padding, "
                    f"sums and softmax. Received: {name}, in {tensor or 'the network'}"
                )
            self._operators.append(operator)
        graph.operators = self._operators
        for index, (scale, zero_point) in self._parameters.items():
            tensor = graph.tensors[index]
            tensor.type = flatbuffer.TYPES.INT8
            tensor.quantization = flatbuffer.quantized(scale, zero_point)
        image = graph.tensors[graph.inputs[0]]
        image.type = flatbuffer.TYPES.UINT8
        image.quantization = flatbuffer.quantized(1 / 255, 0)

    def _take_image(self, operators):
        """Turns uint8 into int8, and scales by saying so; returns what is left."""
        image = self.graph.inputs[0]
        tensor = self.graph.tensors[image]
        integer = flatbuffer.add_tensor(
            self.graph, tensor.name, None, "int8", like=tensor
        )
        self._parameters[integer] = (1 / 255, _LOWEST)
        self._operators.append(
            flatbuffer.make_operator(
                self.model, "QUANTIZE", [image], [integer], schema.QuantizeOptionsT(), 2
            )
        )
        first, *rest = operators
        name = flatbuffer.operator_name(self.model, first)
        factor = flatbuffer.constant(self.model, self.graph, first.inputs[1])
        if name != "MUL" or image not in first.inputs or factor is None:
            raise ValueError(
                "int8 needs an image that is scaled first. "
                f"Received: a network that starts with {name}"
            )
        scaled, offset = int(first.outputs[0]), None
        if flatbuffer.operator_name(self.model, rest[0]) == "ADD":
            offset = flatbuffer.constant(self.model, self.graph, rest[0].inputs[1])
        if factor.size > 1 and offset is not None:
            self._standardize(integer, factor, offset, int(rest[0].outputs[0]))
            return rest[1:]
        for operator in rest:
            operator.inputs = np.where(
                operator.inputs == scaled, integer, operator.inputs
            )
        self._parameters[integer] = (float(factor.max()), _LOWEST)
        return rest

    def _standardize(self, source, factor, offset, target):
        """`factor * image + offset` of each channel, as a convolution of one pixel."""
        self._parameters[target] = self._calibrated(target)
        scale_in, _ = self._parameters[source]
        # The image stands for itself divided by 255.
        scales = 255 * factor.astype("float64") / kernel_storage.LARGEST_CODE
        codes = np.full((1, 1, 1, factor.size), kernel_storage.LARGEST_CODE, np.int8)
        unit = scale_in * scales
        constants = [
            (codes, flatbuffer.quantized(scales, axis=3)),
            (np.rint(offset / unit).astype(np.int32), flatbuffer.quantized(unit)),
        ]
        inputs = [
            flatbuffer.add_constant(self.model, self.graph, b"", values, parameters)
            for values, parameters in constants
        ]
        options = schema.DepthwiseConv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideW = options.strideH = options.depthMultiplier = 1
        self._operators.append(
            flatbuffer.make_operator(
                self.model,
                "DEPTHWISE_CONV_2D",
                [source, *inputs],
                [target],
                options,
                _VERSIONS["DEPTHWISE_CONV_2D"],
            )
        )

    def _convolution(self, name, operator):
        kernel, codes, use = self._uses[id(operator)]
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        scale_in, _ = self._parameters[source]
        scale_out, _ = self._parameters[target] = self._calibrated(target)
        bias = kernel_storage.bias_of(self.model, use)
        flips = codes.flips(use)
        buffer, copied = codes.buffer(self.model, flips)
        if copied:
            copy = kernel_storage.describe(self.model, use, codes.size)
            self._report["copies"].append(copy)
        scales = codes.scales(use).astype("float64")
        weakest = _WEAKEST * scale_out / scale_in
        room = np.abs(bias) / (_LARGEST_BIAS * scale_in)
        scales = np.maximum(scales, np.maximum(weakest, room)).astype("float32")
        old = self.graph.tensors[operator.inputs[1]]
        stored = flatbuffer.add_tensor(
            self.graph,
            old.name,
            old.shape,
            "int8",
            buffer=buffer,
            quantization=flatbuffer.quantized(scales, axis=kernel.axis),
        )
        unit = np.float64(np.float32(scale_in)) * scales
        integers = np.rint(bias / unit).astype(np.int32)
        bias = flatbuffer.add_constant(
            self.model,
            self.graph,
            old.name,
            integers,
            flatbuffer.quantized(unit),
        )
        operator.inputs = np.array([source, stored, bias], np.int32)
        self._set_version(name, operator)

    def _plain(self, name, operator):
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        for index in operator.inputs:
            tensor = self.graph.tensors[index]
            if flatbuffer.dtype(tensor) == "float32" and index not in self._parameters:
                raise ValueError(
                    "int8 has no rule for constants of an operator that is no "
                    f"convolution. Received: {name}, in {tensor.name.decode()}"
                )
        if name in _SAME:
            self._parameters[target] = self._parameters[source]
        elif name == "SOFTMAX":
            self._parameters[target] = _SOFTMAX
        else:
            self._parameters[target] = self._calibrated(target)
        self._set_version(name, operator)

    def _calibrated(self, index):
        """(scale, zero point) of a range, which holds 0."""
        low, high = self._ranges[index]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / (_HIGHEST - _LOWEST), 1e-8)
        zero_point = int(np.clip(round(_LOWEST - low / scale), _LOWEST, _HIGHEST))
        return float(np.float32(scale)), zero_point

    def _set_version(self, name, operator):
        operator.opcodeIndex = flatbuffer.operator_code(
            self.model, name, _VERSIONS[name]
        )

"""The parts of LiteRT's 8-bit specification that every rule of `integer` needs."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from rs_keras.export import codes as codes_lib
from rs_keras.export import flatbuffer

LOWEST, HIGHEST = -128, 127
CODES = HIGHEST - LOWEST
# {operator: its version for int8}
VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 12,
    "HARD_SWISH": 1,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESHAPE": 1,
    "SOFTMAX": 2,
}
# Input scale times kernel scale over output scale: XNNPACK takes less than 256.
_LARGEST_MULTIPLIER = 128
# How far a bias may go: the sums of a channel need the rest of the 32 bits.
_LARGEST_BIAS = 2**30
# Of the output's step; a channel this weak is constant, and its multiplier is still
# one that every runtime can represent.
_WEAKEST = 2**-26


class IntegerGraph:
    """A graph whose operators are written anew, for int8.

    Attributes:
        model, graph: of the file.
        parameters: {index of a tensor: (scale, zero point)}.
        operators: those written so far.
    """

    def __init__(self, model, graph):
        self.model = model
        self.graph = graph
        self.parameters = {}
        self.operators = []

    def finish(self, same):
        """Puts the new operators and parameters into the graph.

        Args:
            same: {tensor that nothing computes: the one that has its values}.
        """
        self.graph.operators = self.operators
        outputs = [same.get(int(i), int(i)) for i in self.graph.outputs]
        self.graph.outputs = np.array(outputs, np.int32)
        for signature in self.model.signatureDefs:
            if self.model.subgraphs[signature.subgraphIndex] is self.graph:
                for entry in signature.outputs:
                    index = same.get(entry.tensorIndex, entry.tensorIndex)
                    entry.tensorIndex = index
                    self.graph.tensors[index].name = entry.name
        for index, (scale, zero_point) in self.parameters.items():
            tensor = self.graph.tensors[index]
            tensor.type = flatbuffer.TYPES.INT8
            tensor.quantization = flatbuffer.quantized(scale, zero_point)

    def pixel(self, source, target, factor, offset, activation):
        """Adds a depthwise convolution of one pixel; its parameters are known."""
        scales = np.abs(factor) / codes_lib.LARGEST_CODE
        self.widen(target, scales.max(), source)
        scales = self.safe_scales(scales, offset, source, target)
        codes = np.where(factor < 0, -1, 1) * codes_lib.LARGEST_CODE
        kernel = flatbuffer.add_constant(
            self.model,
            self.graph,
            b"",
            codes.astype(np.int8).reshape(1, 1, 1, -1),
            flatbuffer.quantized(scales, axis=3),
        )
        options = schema.DepthwiseConv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideW = options.strideH = options.depthMultiplier = 1
        options.fusedActivationFunction = activation
        bias = self.add_bias(offset, scales, source)
        self.add("DEPTHWISE_CONV_2D", [source, kernel, bias], target, options)

    def widen(self, target, scale, source):
        """Raises the scale of what a kernel computes where it is out of proportion.

        Args:
            scale: the largest of the kernel's.
        """
        found, zero_point = self.parameters[target]
        least = self.parameters[source][0] * scale / _LARGEST_MULTIPLIER
        self.parameters[target] = (max(found, float(least)), zero_point)

    def safe_scales(self, scales, bias, source, target):
        """Scales of channels, raised where they are too weak to be computed with."""
        scale_in, scale_out = self.parameters[source][0], self.parameters[target][0]
        room = np.abs(bias) / (_LARGEST_BIAS * scale_in)
        weakest = _WEAKEST * scale_out / scale_in
        return np.maximum(scales, np.maximum(room, weakest)).astype("float32")

    def add_bias(self, bias, scales, source):
        """The index of a bias as integers."""
        unit = self.parameters[source][0] * scales.astype("float64")
        integers = np.rint(bias / unit).astype(np.int32)
        return flatbuffer.add_constant(
            self.model, self.graph, b"", integers, flatbuffer.quantized(unit)
        )

    def constant(self, operator):
        """The second input of an operator, if it is a constant."""
        return flatbuffer.constant(self.model, self.graph, operator.inputs[1])

    def add_tensor(self, like, parameters):
        index = flatbuffer.add_tensor(self.graph, like.name, None, "int8", like=like)
        if parameters is not None:
            self.parameters[index] = parameters
        return index

    def add(self, name, inputs, target, options, version=None):
        version = version or VERSIONS[name]
        self.operators.append(
            flatbuffer.make_operator(
                self.model, name, inputs, [target], options, version
            )
        )

    def keep(self, name, operator):
        """The operator as it is, in its version for int8."""
        operator.opcodeIndex = flatbuffer.operator_code(
            self.model, name, VERSIONS[name]
        )
        self.operators.append(operator)

"""A .tflite file as objects that can be edited, and back: equal parts stored once.

The objects are those of LiteRT's own schema (`ModelT`, `SubGraphT`, `TensorT`, …).
"""

import hashlib
import re

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPERATORS = schema.BuiltinOperator
TYPES = schema.TensorType
_OPERATOR_NAMES = {
    code: name for name, code in vars(OPERATORS).items() if isinstance(code, int)
}
_DTYPES = {
    TYPES.FLOAT32: "float32",
    TYPES.FLOAT16: "float16",
    TYPES.INT32: "int32",
    TYPES.UINT8: "uint8",
    TYPES.INT64: "int64",
    TYPES.BOOL: "bool",
    TYPES.INT8: "int8",
}
_TYPES = {name: code for code, name in _DTYPES.items()}
# What the schema asks of the data of a buffer.
_BUFFER_ALIGNMENT = 16


def read(data):
    """The `ModelT` of a file's bytes."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            parameters = tensor.quantization
            if parameters is not None and parameters.scale is None:
                tensor.quantization = None  # the converter's way to say none
    return model


def shorten_names(model):
    """Names tensors after signatures' entries and layers: a third of a small graph.

    The converter joins the paths of all operations that became one operator.
    """
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            path = tensor.name.decode().partition(";")[0].split("/")
            layer = re.sub(r"_\d+$", "", path[-2]) if len(path) > 1 else ""
            tensor.name = layer.encode()
    for signature in model.signatureDefs:
        graph = model.subgraphs[signature.subgraphIndex]
        for entry in (*signature.inputs, *signature.outputs):
            graph.tensors[entry.tensorIndex].name = entry.name


def write(model):
    """The bytes of a `ModelT`; what nothing uses is left out."""
    for index, graph in enumerate(model.subgraphs):
        signatures = [s for s in model.signatureDefs if s.subgraphIndex == index]
        _drop_unused_tensors(graph, signatures)
    _drop_unused_buffers(model)
    size = sum(len(b.data) for b in model.buffers if b.data is not None)
    builder = _SharingBuilder(size + (1 << 20))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def subset(model, keys):
    """The model with some of its signatures, in the order of `keys`."""
    signatures = {s.signatureKey.decode(): s for s in model.signatureDefs}
    model.signatureDefs = [signatures[key] for key in keys]
    graphs = [model.subgraphs[s.subgraphIndex] for s in model.signatureDefs]
    for index, signature in enumerate(model.signatureDefs):
        signature.subgraphIndex = index
    model.subgraphs = graphs
    return model


def operator_name(model, operator):
    """As the schema spells it, "CONV_2D" say."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Files of old hold the code in a byte.
    return _OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]


def constant(model, graph, index):
    """The values of a tensor, in its shape; None where it is computed, or absent."""
    if index < 0:
        return None
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    values = np.frombuffer(data.tobytes(), _DTYPES[tensor.type])
    return values.reshape(() if tensor.shape is None else tuple(tensor.shape))


def dtype(tensor):
    """numpy's name of a tensor's type."""
    return _DTYPES[tensor.type]


def add_buffer(model, values):
    """The index of a new buffer."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def add_tensor(graph, name, shape, dtype, *, like=None, buffer=0, quantization=None):
    """The index of a new tensor.

    Args:
        like: a tensor whose shape, with what may vary in it, it takes over.
        quantization: `quantized(...)`, or None.
    """
    tensor = schema.TensorT()
    tensor.name = name
    tensor.shape = np.array(shape if like is None else like.shape, np.int32)
    if like is not None:
        tensor.shapeSignature = like.shapeSignature
    tensor.hasRank = True
    tensor.type = _TYPES[dtype]
    tensor.buffer = buffer
    tensor.quantization = quantization
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_constant(model, graph, name, values, quantization=None):
    """The index of a new tensor with values of its own."""
    return add_tensor(
        graph,
        name,
        values.shape,
        values.dtype.name,
        buffer=add_buffer(model, values),
        quantization=quantization,
    )


def quantized(scale, zero_point=0, axis=0):
    """Parameters of `scale * (integer - zero_point)`, of a tensor or of each channel.

    Args:
        scale: float, or an array of one for each index of `axis`.
    """
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.atleast_1d(np.asarray(scale, np.float32))
    parameters.zeroPoint = np.full(len(parameters.scale), zero_point, np.int64)
    parameters.quantizedDimension = axis
    return parameters


def signature_entry(name, index):
    """An input or output of a signature."""
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def make_operator(model, name, inputs, outputs, options=None, version=1):
    """An operator that stands in no graph yet.

    Args:
        name: as the schema spells it.
        options: an object of the schema, `AddOptionsT` say, or None.
    """
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_code(model, name, version)
    operator.inputs = np.array(inputs, np.int32)
    operator.outputs = np.array(outputs, np.int32)
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = options
    return operator


def operator_code(model, name, version):
    """The index of an operator's code, which is added where it is missing."""
    builtin = getattr(OPERATORS, name)
    for index, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (builtin, version):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _drop_unused_tensors(graph, signatures):
    """Of a graph, renumbering the others."""
    lists = [graph.inputs, graph.outputs]
    for operator in graph.operators:
        lists += [operator.inputs, operator.outputs]
        if operator.intermediates is not None:
            lists.append(operator.intermediates)
    used = np.unique(np.concatenate([np.asarray(indices) for indices in lists]))
    used = used[used >= 0]
    places = np.full(len(graph.tensors) + 1, -1, np.int32)  # -1, absent, stays -1
    places[used] = np.arange(len(used))
    graph.tensors = [graph.tensors[index] for index in used]
    graph.inputs, graph.outputs = places[graph.inputs], places[graph.outputs]
    for operator in graph.operators:
        operator.inputs = places[operator.inputs]
        operator.outputs = places[operator.outputs]
        if operator.intermediates is not None:
            operator.intermediates = places[operator.intermediates]
    for signature in signatures:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = int(places[entry.tensorIndex])


def _drop_unused_buffers(model):
    """And stores equal ones once. Buffer 0 is empty by the schema."""
    kept, places, seen = [model.buffers[0]], {0: 0}, {}

    def place(index):
        if index not in places:
            data = model.buffers[index].data
            if data is None or not len(data):
                places[index] = 0
                return 0
            key = _digest(data)
            if key not in seen:
                seen[key] = len(kept)
                kept.append(model.buffers[index])
            places[index] = seen[key]
        return places[index]

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = place(tensor.buffer)
    for metadata in model.metadata or ():
        metadata.buffer = place(metadata.buffer)
    model.metadataBuffer = None
    model.buffers = kept


def _digest(values):
    return (values.dtype.str, values.size, hashlib.sha256(values).digest())


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors and strings once: FlatBuffers refer to them by offset."""

    def __init__(self, size):
        super().__init__(size)
        self._vectors, self._strings = {}, {}

    def CreateNumpyVector(self, x):
        x = np.ascontiguousarray(x)
        key = _digest(x)
        if key not in self._vectors:
            alignment = _BUFFER_ALIGNMENT if x.dtype == np.uint8 else x.itemsize
            self.StartVector(x.itemsize, x.size, alignment)
            self.head = self.head - x.nbytes
            self.Bytes[self.head : self.head + x.nbytes] = x.tobytes()
            self._vectors[key] = self.EndVector()
        return self._vectors[key]

    def CreateString(self, s, *args, **kwargs):
        if s not in self._strings:
            self._strings[s] = super().CreateString(s, *args, **kwargs)
        return self._strings[s]

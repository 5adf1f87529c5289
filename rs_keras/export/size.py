"""What the bytes of a .tflite file are."""

from rs_keras.export import flatbuffer
from rs_keras.export import weight_sharing


def bytes_by_kind(data):
    """Bytes of a file by what they hold.

    Args:
        data: bytes of the file.

    Returns:
        {"kernels", "biases", "factors": of channels, behind convolutions; "tables": of
        private parameters; "scales": of integers, with their zero points; "other":
        constants; "structure": operators, shapes, names}.
    """
    model = flatbuffer.read(data)
    kinds = {}
    scales = {}
    for graph in model.subgraphs:
        stored = {}  # {tensor: what it was dequantized from}
        for operator in graph.operators:
            name = flatbuffer.operator_name(model, operator)
            if name == "DEQUANTIZE":
                stored[int(operator.outputs[0])] = int(operator.inputs[0])
            for position, index in enumerate(operator.inputs):
                index = stored.get(int(index), int(index))
                if index < 0 or (name == "DEQUANTIZE" and index in stored.values()):
                    continue
                kinds.setdefault(
                    graph.tensors[index].buffer, _kind(name, position, graph, index)
                )
        for tensor in graph.tensors:
            found = tensor.quantization
            if found is not None:
                for vector in (found.scale, found.zeroPoint):
                    scales[vector.tobytes()] = vector.nbytes
    found = dict.fromkeys(("kernels", "biases", "factors", "tables", "scales"), 0)
    found["scales"] = sum(scales.values())
    found["other"] = 0
    for index, buffer in enumerate(model.buffers):
        if buffer.data is not None:
            found[kinds.get(index, "other")] += len(buffer.data)
    return {**found, "structure": len(data) - sum(found.values())}


def _kind(operator, position, graph, index):
    if operator in weight_sharing.KERNEL_AXES and position > 0:
        return "kernels" if position == 1 else "biases"
    shape = graph.tensors[index].shape
    rank = 0 if shape is None else len(shape)
    if operator in ("MUL", "ADD") and rank in (1, 2):
        return "factors" if rank == 1 else "tables"
    return "other"

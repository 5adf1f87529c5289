"""The ranges of a float network's tensors, over real images."""

import numpy as np
from ai_edge_litert import interpreter as litert

from rs_keras.export import flatbuffer


def ranges(data, images, threads=0):
    """The smallest and the largest value of every computed tensor.

    Args:
        data: bytes of a float .tflite file of static signatures with an `image`.
        images: {signature: float32 (N, r, r, 3)}.
        threads: of the interpreter; 0 for its default.

    Returns:
        {signature: {index of a tensor: (smallest, largest)}}.
    """
    model = flatbuffer.read(data)
    computed = {
        s.signatureKey.decode(): _show_all(model, s) for s in model.signatureDefs
    }
    interpreter = litert.Interpreter(
        model_content=flatbuffer.write(model), num_threads=threads or None
    )
    found = {}
    for signature, indices in computed.items():
        run = interpreter.get_signature_runner(signature)
        low = dict.fromkeys(indices, np.inf)
        high = dict.fromkeys(indices, -np.inf)
        for image in images[signature]:
            values = run(image=image[None])
            for index, name in indices.items():
                low[index] = min(low[index], float(values[name].min()))
                high[index] = max(high[index], float(values[name].max()))
        found[signature] = {index: (low[index], high[index]) for index in indices}
    return found


def _show_all(model, signature):
    """Makes every computed tensor an output: {its index: the name it gets}."""
    graph = model.subgraphs[signature.subgraphIndex]
    indices = [int(i) for operator in graph.operators for i in operator.outputs]
    names = {index: f"tensor_{index}" for index in indices}
    graph.outputs = np.array(indices, np.int32)
    signature.outputs = [
        flatbuffer.signature_entry(name, index) for index, name in names.items()
    ]
    return names

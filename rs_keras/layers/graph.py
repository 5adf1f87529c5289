"""A graph of Keras operations as one block of a backbone."""

import keras

from quant import quantizers
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm

TENSOR = "tensor"


@keras.saving.register_keras_serializable(package="rs_keras")
class Graph(keras.layers.Layer):
    """Runs operations one after the other; normalizations are given the resolution.

    Args:
        operations: list of layers and other Keras operations, each once.
        nodes: list of (position in `operations`, arguments, keyword arguments), in an
            order in which they can run. `{"tensor": k}` among the arguments, at any
            depth, stands for a tensor: 0 is the input, k what node k - 1 returns.
        output: k of the output.
        bases: `quantization.Bases`, where something is quantized.

    Call arguments:
        x: tensor (N, H, W, C).
        resolution, training: as of `SwitchableBatchNormalization`.

    Returns:
        Tensor, what the last node returns.
    """

    def __init__(self, operations, nodes, output, bases=None, **kwargs):
        super().__init__(**kwargs)
        self.operations = list(operations)
        # Plain data, of which Keras shall track nothing.
        self._nodes = tuple(tuple(node) for node in nodes)
        self.output_tensor = output
        self.bases = bases

    def build(self, input_shape):
        def call(operation, *args, **kwargs):
            return operation(*args, **kwargs)

        self._run(keras.KerasTensor(input_shape, self.compute_dtype), call)

    def call(self, x, resolution=None, training=None):
        def call(operation, *args, **kwargs):
            kwargs |= self._context(operation, resolution, training)
            return operation(*args, **kwargs)

        return self._run(x, call)[self.output_tensor]

    def compute_output_shape(self, input_shape):
        return tuple(self.specs(input_shape)[self.output_tensor].shape)

    def get_config(self):
        return {
            **super().get_config(),
            "operations": keras.saving.serialize_keras_object(self.operations),
            "nodes": keras.saving.serialize_keras_object(list(self._nodes)),
            "output": self.output_tensor,
            "bases": keras.saving.serialize_keras_object(self.bases),
        }

    @classmethod
    def from_config(cls, config):
        parts = ("operations", "nodes", "bases")
        parts = {p: keras.saving.deserialize_keras_object(config[p]) for p in parts}
        return cls(**{**config, **parts})

    def leaves(self):
        """The layers, in the order in which they were met first."""
        return [op for op in self.operations if isinstance(op, keras.layers.Layer)]

    def steps(self, input_shape):
        """(operation, shapes of its tensors, shape of its output) of each node."""
        specs = self.specs(input_shape)
        for (position, args, kwargs), spec in zip(self._nodes, specs[1:], strict=True):
            shapes = [specs[k].shape for k in tensors((args, kwargs))]
            yield self.operations[position], shapes, getattr(spec, "shape", None)

    def specs(self, input_shape):
        """Symbolic tensors: the input, and what each node returns."""

        def call(operation, *args, **kwargs):
            return operation.compute_output_spec(*args, **kwargs)

        return self._run(keras.KerasTensor(input_shape, self.compute_dtype), call)

    def _run(self, x, call):
        values = [x]
        for position, args, kwargs in self._nodes:
            args, kwargs = fill((args, kwargs), values)
            values.append(call(self.operations[position], *args, **kwargs))
        return values

    def _context(self, operation, resolution, training):
        """What an operation is told beside its tensors."""
        if isinstance(operation, switchable_norm.SwitchableBatchNormalization):
            return {"resolution": resolution, "training": training}
        if isinstance(operation, quantizers.LQActivationQuantizer):
            return self.bases.for_activations(operation, resolution, training)
        if quantization.is_quantized(operation):
            return self.bases.for_weights(resolution, training)
        return {}


def fill(node, values):
    """Arguments with values in the places of their tensors."""
    if isinstance(node, dict) and set(node) == {TENSOR}:
        return values[node[TENSOR]]
    if isinstance(node, dict):
        return {key: fill(value, values) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(fill(value, values) for value in node)
    return node


def tensors(node):
    """The numbers of the tensors among arguments, in order."""
    if isinstance(node, dict) and set(node) == {TENSOR}:
        return [node[TENSOR]]
    values = node.values() if isinstance(node, dict) else node
    if not isinstance(node, dict | list | tuple):
        return []
    return [k for value in values for k in tensors(value)]

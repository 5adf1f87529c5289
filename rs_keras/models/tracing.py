"""The graph of a Keras model as a list of operations and of nodes."""

import re

import keras

from rs_keras.layers import graph
from rs_keras.models import ends


class Trace:
    """What a model does to an image, node by node.

    Args:
        model: functional or Sequential model.
        preprocessing: layer or function of a tensor in front of it, or None.
        replace: function of (layer, name), returning the layer for its place.
        check: function of (layer, [shape of each tensor it takes], or None before they
            are known), raising ValueError for one that cannot stay.

    Attributes:
        name: of the model.
        operations: list of the layers and other operations, each once.
        nodes: list of (position in operations, args, kwargs), as of `graph.Graph`.
        output: number of the tensor that the model returns.

    Raises:
        ValueError: the model is of another kind, or some layer takes no image of a size
            that is not known.
    """

    def __init__(self, model, preprocessing, replace, check):
        self.operations, self.nodes = [], []
        self._replace, self._check = replace, check
        self._originals = []
        self._shapes = [(None, None, None, 3)]
        self._numbers = {}  # of symbolic tensors
        self._copies = {}  # of operations
        self._kept = []  # ids are of objects that live
        model = _functional(model)
        self.name = model.name
        _check_ends(model)
        self.output = 0
        if preprocessing is not None:
            self.output = self._walk(_front(preprocessing), self.output)
        self.output = self._walk(model, self.output)

    def take_head(self, num_classes=None):
        """Ends the graph in front of the layer that makes the logits.

        Returns:
            (`keras.layers.Dense`, its weights as arrays, or None where it has another
            number of classes).
        """
        number = self.output
        while self._is_last(number):
            (number,) = graph.tensors(self.nodes[number - 1][1])
        position, args, _ = self.nodes[number - 1]
        layer = self.operations[position]
        (before,) = graph.tensors(args)[:1] or (None,)
        alone = sum(node[0] == position for node in self.nodes) == 1
        if not alone or not _makes_logits(layer, self._shapes[before or 0]):
            raise ValueError(
                "A network that is made switchable must end with logits, or their "
                "softmax, of a plain dense layer (or 1x1 convolution behind global "
                f"pooling). Received: {self.name}, which ends with {layer.name} "
                f"({_kind(layer)})"
            )
        weights = self._originals[position].get_weights()
        self.output = before
        weights[0] = weights[0].reshape(weights[0].shape[-2:])
        head = ends.dense_head(
            weights[0].shape[-1] if num_classes is None else num_classes,
            kernel_initializer="glorot_uniform",
            bias_initializer="zeros",
            use_bias=layer.use_bias,
            name=layer.name,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
        )
        return head, weights if head.units == weights[0].shape[-1] else None

    def pruned(self):
        """(operations, nodes, output) that the output needs."""
        needed, pending = set(), [self.output]
        while pending:
            number = pending.pop()
            if number and number not in needed:
                needed.add(number)
                pending += graph.tensors(self.nodes[number - 1][1:])
        kept = sorted(needed)
        numbers = {number: i for i, number in enumerate([0, *kept])}
        references = {old: {graph.TENSOR: new} for old, new in numbers.items()}
        positions = sorted({self.nodes[number - 1][0] for number in kept})
        nodes = []
        for number in kept:
            position, args, kwargs = self.nodes[number - 1]
            args, kwargs = graph.fill((args, kwargs), references)
            nodes.append((positions.index(position), args, kwargs))
        operations = [self.operations[position] for position in positions]
        return operations, nodes, numbers[self.output]

    def _walk(self, model, number):
        """Adds the nodes of a model on the tensor `number`; returns that of its output.

        Keras' own walk over the graph, which calls `_call` for each node.
        """
        image = keras.Input(self._shapes[number][1:], dtype=model.inputs[0].dtype)
        self._number(image, number)
        structure = keras.tree.pack_sequence_as(model.input, [image])
        # What it makes of the graph is of no use here: the tensors are.
        copy = keras.models.clone_model(
            model,
            input_tensors=structure,
            clone_function=self._copy,
            call_function=self._call,
        )
        return self._numbers[id(copy.outputs[0])]

    def _copy(self, operation):
        """The operation in the place of one of the model, made when that is met."""
        key = id(operation)
        if key not in self._copies:
            self._kept.append(operation)
            self._check(operation, None)
            if isinstance(operation, keras.Model):
                # Calling the original would leave a trace in it.
                copy = _functional(operation, new=True)
            elif isinstance(operation, keras.layers.Layer):
                copy = self._replace(operation, self.unique(operation.name))
            else:
                copy = type(operation).from_config(operation.get_config())
            self._copies[key] = copy
            self._copies[id(copy)] = operation
        return self._copies[key]

    def _call(self, operation, *args, **kwargs):
        """Calls a copy on symbolic tensors, and writes down what it was given."""
        original = self._copies[id(operation)]
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if _is_tensor(x)]
        if isinstance(operation, keras.Model):
            number = self._walk(operation, self._numbers[id(tensors[0])])
            output = operation(tensors[0])
            self._number(output, number)
            return output
        self._check(original, [x.shape for x in tensors])
        for name in ("training", "mask"):  # the first is up to who calls the network
            kwargs.pop(name, None)
        try:
            output = operation(*args, **kwargs)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise ValueError(
                "A network that is made switchable must take images of any size. "
                f"Received: {original.name} ({type(original).__name__}), which does "
                f"not: {str(error).splitlines()[0]}"
            ) from error
        if not _is_tensor(output):
            raise ValueError(
                "Layers of a network that is made switchable return one tensor. "
                f"Received: {original.name} ({type(original).__name__})"
            )
        if operation not in self.operations:
            self.operations.append(operation)
            self._originals.append(original)
        self._shapes.append(tuple(output.shape))
        position = self.operations.index(operation)
        self.append(position, *self._referring((args, kwargs)))
        self._number(output, len(self.nodes))
        return output

    def append(self, position, args, kwargs):
        """Adds a node; returns the reference to what it returns."""
        self.nodes.append((position, tuple(args), dict(kwargs)))
        return {graph.TENSOR: len(self.nodes)}

    def _number(self, tensor, number):
        self._kept.append(tensor)
        self._numbers[id(tensor)] = number

    def _referring(self, node):
        """Arguments with references in the places of symbolic tensors."""
        if _is_tensor(node):
            return {graph.TENSOR: self._numbers[id(node)]}
        if isinstance(node, dict):
            return {key: self._referring(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(self._referring(value) for value in node)
        return node

    def unique(self, name):
        """A name that no operation has, of letters that every backend takes."""
        name = clean(name)
        taken = {operation.name for operation in self.operations}
        found, n = name, 1
        while found in taken:
            found, n = f"{name}_{n}", n + 1
        return found

    def _is_last(self, number):
        """Whether a node may stand behind the logits: a softmax, or a flattening."""
        if number == 0:
            return False
        position, args, _ = self.nodes[number - 1]
        layer, before = self.operations[position], graph.tensors(args)
        if type(layer).__name__ in ("Flatten", "Reshape"):
            return all(side == 1 for side in self._shapes[before[0]][1:-1])
        softmax = isinstance(layer, keras.layers.Activation)
        softmax = softmax and layer.activation is keras.activations.softmax
        return softmax or type(layer).__name__ == "Softmax"


def _makes_logits(layer, shape):
    """Whether a layer is a dense one, on features (N, C) or (N, 1, 1, C)."""
    dense = isinstance(layer, keras.layers.Dense) and len(shape) == 2
    if type(layer).__name__ in ("Conv2D", "QuantConv2D"):
        dense = layer.groups == 1 and tuple(shape[1:3]) == (1, 1)
        dense = dense and {*layer.kernel_size, *layer.strides} == {1}
    ends = (keras.activations.linear, keras.activations.softmax)
    return (
        dense
        and layer.activation in ends
        and not getattr(layer, "lora_enabled", False)
        and layer.kernel_constraint is None
        and layer.bias_constraint is None
    )


def _kind(layer):
    """The class of a layer, with its activation where it has one."""
    activation = getattr(layer, "activation", None)
    name = f", {activation.__name__}" if activation is not None else ""
    return f"{type(layer).__name__}{name}"


def clean(name):
    """A name without the letters that TensorFlow refuses in its graphs."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


def _is_tensor(value):
    return isinstance(value, keras.KerasTensor)


def _functional(model, new=False):
    """A functional model of the same layers; Sequential ones are no such."""
    functional = isinstance(model, keras.Model) and hasattr(model, "operations")
    if isinstance(model, keras.Sequential):
        functional, new = model.built, True
    if not functional or (len(model.inputs), len(model.outputs)) != (1, 1):
        raise ValueError(
            "`keras_model` must be a functional or Sequential Keras model with one "
            "input and one output, and so must be those nested in it. "
            f"Received: {model!r}"
        )
    if not new:
        return model
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def _check_ends(model):
    image, output = tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    if len(image) != 4 or image[-1] not in (3, None) or len(output) != 2:
        raise ValueError(
            "`keras_model` must take one RGB image (N, H, W, 3) and return the logits "
            "or probabilities of classes (N, C). "
            f"Received: {model.name}, {image} to {output}"
        )


def _front(preprocessing):
    """What stands in front of a model, as a functional model."""
    image = keras.Input((None, None, 3))
    try:
        output = preprocessing(image)
        return keras.Model(image, output, name="preprocessing")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            "`preprocessing` must be a layer, or a function of a tensor (N, H, W, 3) "
            f"that consists of Keras operations. Received: {preprocessing!r} "
            f"({str(error).splitlines()[0]})"
        ) from error

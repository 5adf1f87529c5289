"""A float .tflite made integer-only: 8-bit tensors, whose kernels signatures share.

LiteRT's 8-bit specification: activations have a scale and a zero point, kernels a scale
for each channel, biases 32 bits in units of input scale times kernel scale. The codes
of a kernel are computed once, from what its copies share (`codes.Codes`).

A convolution of one pixel, depthwise, is whatever else works channel by channel: a
normalization that stands alone, and each step of a low-bit quantizer of activations,
which saturates on both sides of its threshold.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from rs_keras.export import codes as codes_lib
from rs_keras.export import flatbuffer
from rs_keras.export import integer_graph
from rs_keras.export import kernel_storage
from rs_keras.export import staircase as staircase_lib
from rs_keras.export import weight_sharing

# Their output is some of their input: it keeps the parameters.
_SAME = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD", "RESHAPE")
# These have no other parameters.
_SHARES = dict.fromkeys(("SOFTMAX", "LOGISTIC"), (1 / 256, integer_graph.LOWEST))
_AFFINE = ("MUL", "ADD", "SUB")
_NO_ACTIVATION = schema.ActivationFunctionType.NONE
# Steps of the output for a step of the input of a convolution that only saturates.
_STEEP = 8 * codes_lib.LARGEST_CODE


def make_integer(model, kernels, ranges, book=False):
    """Changes every tensor of a model to integers, in place.

    `image` becomes uint8, with a scale that says what the network reads (1 / 255 where
    it divides by 255); `logits` and `probabilities` become int8.

    Args:
        model: `ModelT` of static float signatures.
        kernels: list of `weight_sharing.SharedKernel` of that model.
        ranges: {signature: {tensor: (smallest, largest)}} of that model.
        book: see `codes.Codes`.

    Returns:
        As `kernel_storage.store_int8`.

    Raises:
        ValueError: an operator that has no rule here, named.
    """
    report = kernel_storage.new_report(kernels)
    uses = {}
    for kernel in kernels:
        codes = codes_lib.Codes(kernel, book)
        kernel_storage.count_error(report, codes)
        for use in kernel.uses:
            uses[id(use.operator)] = (kernel, codes, use)
    for signature in model.signatureDefs:
        graph = model.subgraphs[signature.subgraphIndex]
        found = ranges[signature.signatureKey.decode()]
        _Graph(model, graph, found, uses, report).convert()
    return report


class _Graph(integer_graph.IntegerGraph):
    """One graph on its way from float to integers."""

    def __init__(self, model, graph, ranges, uses, report):
        super().__init__(model, graph)
        self._ranges = ranges
        self._uses = uses
        self._report = report
        self._same = {}  # {tensor: the one that has its values}
        # A tensor of zeros has a range, too: kernels compute with ratios of scales.
        self._least = 1e-4 * max(max(-low, high) for low, high in ranges.values())

    def convert(self):
        graph = self.graph
        todo = list(graph.operators)
        self._image(todo)
        staircases = staircase_lib.find(self.model, graph)
        inner = {other for found in staircases.values() for other in found.others}
        self._fixed = self._fixed_parameters(todo, staircases)
        while todo:
            operator = todo.pop(0)
            operator.inputs = np.array(
                [self._same.get(int(i), int(i)) for i in operator.inputs], np.int32
            )
            name = flatbuffer.operator_name(self.model, operator)
            if id(operator) in inner:
                continue
            if id(operator) in staircases:
                self._staircase(staircases[id(operator)])
            elif name in weight_sharing.KERNEL_AXES and id(operator) in self._uses:
                self._convolution(name, operator)
            elif name in ("QUANTIZE", "DEQUANTIZE"):
                # 8-bit ranges of training: `_fixed_parameters` has seen to them.
                self._same[int(operator.outputs[0])] = int(operator.inputs[0])
            elif name in _AFFINE and self.constant(operator) is not None:
                self._affine(name, operator, todo)
            elif name in integer_graph.VERSIONS:
                self._plain(name, operator)
            else:
                layer = graph.tensors[operator.outputs[0]].name.decode()
                raise ValueError(
                    "int8 and lq have rules for convolutions, dense layers, pooling, "
                    "padding, sums, products, ReLU, sigmoid, softmax, hard swish, "
                    "concatenation and LQ-Nets' quantizers. "
                    f"Received: {name}, in {layer or 'the network'}"
                )
        self.finish(self._same)

    def _image(self, todo):
        """uint8 to int8; where it is scaled by one number, by saying so."""
        image = int(self.graph.inputs[0])
        tensor = self.graph.tensors[image]
        first = todo[0]
        name = flatbuffer.operator_name(self.model, first)
        scale = 1.0
        factor = self.constant(first) if name == "MUL" else None
        alone = not any(image in operator.inputs for operator in todo[1:])
        if factor is not None and factor.size == 1 and alone:
            scale = float(factor.max())
            self._same[int(first.outputs[0])] = image
            del todo[0]
        integer = self.add_tensor(tensor, (scale, integer_graph.LOWEST))
        for operator in todo:
            operator.inputs = np.where(
                operator.inputs == image, integer, operator.inputs
            )
        self._same = dict.fromkeys(self._same, integer)
        tensor.type = flatbuffer.TYPES.UINT8
        tensor.quantization = flatbuffer.quantized(scale, 0)
        self.add("QUANTIZE", [image], integer, schema.QuantizeOptionsT(), 2)

    def _fixed_parameters(self, todo, staircases):
        """{tensor: parameters} that are no matter of calibration.

        What feeds staircases alone needs no range beyond the highest threshold; what
        was trained with a range of 8 bits keeps it.
        """
        readers = {}
        for operator in todo:
            for index in operator.inputs:
                readers.setdefault(int(index), []).append(operator)
        fixed = {}
        for found in staircases.values():
            if {id(op) for op in readers[found.source]} <= found.others:
                highest = found.thresholds[-1] * (1 + 2 / integer_graph.CODES)
                fixed[found.source] = (
                    highest / integer_graph.CODES,
                    integer_graph.LOWEST,
                )
        for operator in todo:
            if flatbuffer.operator_name(self.model, operator) == "QUANTIZE":
                tensor = self.graph.tensors[operator.outputs[0]]
                shift = (
                    integer_graph.LOWEST if flatbuffer.dtype(tensor) == "uint8" else 0
                )
                fixed[int(operator.inputs[0])] = (
                    float(tensor.quantization.scale[0]),
                    int(tensor.quantization.zeroPoint[0]) + shift,
                )
        return fixed

    def _convolution(self, name, operator):
        kernel, codes, use = self._uses[id(operator)]
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        self.parameters[target] = self._calibrated(target)
        bias = kernel_storage.bias_of(self.model, use)
        buffer, copied = codes.buffer(self.model, codes.flips(use))
        if copied:
            copy = kernel_storage.describe(self.model, use, codes.size)
            self._report["copies"].append(copy)
        scales = codes.scales(use).astype("float64")
        self.widen(target, scales.max(), source)
        scales = self.safe_scales(scales, bias, source, target)
        old = self.graph.tensors[operator.inputs[1]]
        stored = flatbuffer.add_tensor(
            self.graph,
            old.name,
            old.shape,
            "int8",
            buffer=buffer,
            quantization=flatbuffer.quantized(scales, axis=kernel.axis),
        )
        bias = self.add_bias(bias, scales, source)
        operator.inputs = np.array([source, stored, bias], np.int32)
        self.keep(name, operator)

    def _affine(self, name, operator, todo):
        """`act(factor * x + offset)` of each channel."""
        values = self.constant(operator).astype("float64").reshape(-1)
        values = -values if name == "SUB" else values
        factor, offset = (values, 0.0) if name == "MUL" else (1.0, values)
        last = operator
        readers = [op for op in todo if last.outputs[0] in op.inputs]
        plain = last.builtinOptions.fusedActivationFunction == _NO_ACTIVATION
        if name == "MUL" and plain and readers == todo[:1]:
            following = flatbuffer.operator_name(self.model, todo[0])
            added = self.constant(todo[0])
            if following in ("ADD", "SUB") and added is not None:
                last = todo.pop(0)
                offset = added.astype("float64").reshape(-1)
                offset = -offset if following == "SUB" else offset
        source, target = int(operator.inputs[0]), int(last.outputs[0])
        channels = int(self.graph.tensors[source].shape[-1])
        self.parameters[target] = self._calibrated(target)
        factor, offset = (np.broadcast_to(v, channels) for v in (factor, offset))
        self.pixel(
            source, target, factor, offset, last.builtinOptions.fusedActivationFunction
        )

    def _staircase(self, found):
        """The sum of its steps, each of which is either 0 or its height."""
        source = self._same.get(found.source, found.source)
        scale_in, _ = self.parameters[source]
        tensor = self.graph.tensors[source]
        if found.levels[0] != 0:
            raise ValueError(
                "int8 and lq need quantizers of activations with a level of 0. "
                f"Received: {found.levels[0]:g}, in {tensor.name.decode()}"
            )
        top = found.levels[-1]
        shares = found.levels[None] / top
        codes = np.arange(integer_graph.CODES, integer_graph.CODES // 2, -1)[:, None]
        error = np.abs(np.rint(shares * codes) / codes - shares).max(axis=1)
        scale = float(np.float32(top / codes[error.argmin(), 0]))
        report = self._report
        report["level_error"] = max(report["level_error"], float(error.min()))
        total = None
        steps = zip(found.thresholds, np.diff(found.levels), strict=True)
        for number, (threshold, height) in enumerate(steps, start=1):
            alone = len(found.thresholds) == 1
            step = found.target if alone else self.add_tensor(tensor, None)
            height_scale = (
                scale if alone else float(np.float32(height / integer_graph.CODES))
            )
            self.parameters[step] = (height_scale, integer_graph.LOWEST)
            # Between two codes of the input, and as steep as it takes.
            edge = (np.floor(threshold / scale_in) + 0.5) * scale_in
            slope = _STEEP * height_scale / scale_in
            channels = int(tensor.shape[-1])
            middle = (integer_graph.CODES / 2) * height_scale - slope * edge
            self.pixel(
                source, step, np.full(channels, slope), np.full(channels, middle), 0
            )
            if total is None:
                total = step
                continue
            last = number == len(found.thresholds)
            added = found.target if last else self.add_tensor(tensor, None)
            self.parameters[added] = (scale, integer_graph.LOWEST)
            self.add("ADD", [total, step], added, schema.AddOptionsT())
            total = added

    def _plain(self, name, operator):
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        for index in operator.inputs:
            tensor = self.graph.tensors[index]
            if flatbuffer.dtype(tensor) == "float32" and index not in self.parameters:
                raise ValueError(
                    "int8 and lq have no rule for constants of this operator. "
                    f"Received: {name}, in {tensor.name.decode() or 'the network'}"
                )
        if name in _SAME:
            self.parameters[target] = self.parameters[source]
        else:
            self.parameters[target] = _SHARES.get(name) or self._calibrated(target)
        if name == "CONCATENATION":
            # Its kernel copies: all parts need the parameters of the whole.
            operator.inputs = np.array(
                [self._requantized(int(i), target) for i in operator.inputs], np.int32
            )
        self.keep(name, operator)

    def _requantized(self, source, target):
        """The tensor, or a copy with the parameters of another."""
        if self.parameters[source] == self.parameters[target]:
            return source
        like = self.graph.tensors[source]
        copy = self.add_tensor(like, self.parameters[target])
        self.add("QUANTIZE", [source], copy, schema.QuantizeOptionsT(), 2)
        return copy

    def _calibrated(self, index):
        """(scale, zero point) of a range, which holds 0."""
        if index in self._fixed:
            return self._fixed[index]
        low, high = self._ranges[index]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, self._least) / integer_graph.CODES
        zero_point = int(
            np.clip(
                round(integer_graph.LOWEST - low / scale),
                integer_graph.LOWEST,
                integer_graph.HIGHEST,
            )
        )
        return float(np.float32(scale)), zero_point

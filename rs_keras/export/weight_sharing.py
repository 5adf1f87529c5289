"""Kernels that are equal up to a factor for each channel, found in a .tflite file.

A converter folds the private normalization of each resolution into a copy of its own of
every kernel: signature s has `K_s = f_s * K`, a factor for each output channel. Here
the copies are recognized, by their values alone, as one kernel and its factors.
"""

import dataclasses

import numpy as np

from rs_keras.export import flatbuffer

# Operators with a kernel, their second input, and the axis of its output channels.
KERNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
# Of the largest value of a channel: both copies and the factor between them are rounded
# to float32, some 2**-24 each.
EQUALITY = 2**-21
# Below it single precision has no full precision left: such a channel counts as zero.
SMALLEST = 1e-30
# A shared channel that is this much smaller than one of its copies is stored as that
# copy: half precision has no room for more.
LARGEST_FACTOR = 16.0


@dataclasses.dataclass
class Use:
    """One operator that reads a kernel.

    Attributes:
        graph, operator: of the file.
        factors: float64 (channels,), what the shared kernel is multiplied by.
    """

    graph: object
    operator: object
    factors: np.ndarray


class SharedKernel:
    """One kernel and everything that reads it, times factors of its own.

    Attributes:
        values: float32, in the shape of the file's tensor.
        axis: of the output channels.
        uses: list of `Use`.
    """

    def __init__(self, values, axis, use):
        self.axis = axis
        self.uses = [use]
        self._shape = values.shape
        self._rows = _rows(values, axis)

    @property
    def values(self):
        return _unrows(self._rows, self._shape, self.axis)

    @property
    def peaks(self):
        """The largest magnitude of each channel, float64 (channels,)."""
        return _peaks(self._rows).astype("float64")

    def add(self, values, axis, use):
        """Takes another copy up; False, and nothing is changed, if it is none."""
        if (values.shape, axis) != (self._shape, self.axis):
            return False
        rows = _rows(values, axis)
        empty = (_peaks(self._rows) < SMALLEST) & (_peaks(rows) >= SMALLEST)
        reference = np.where(empty[:, None], rows, self._rows)
        factors = _factors(reference, rows)
        if factors is None:
            return False
        if empty.any():
            # Until here nobody has had this channel but as zero.
            self._rows = reference
            for earlier in self.uses:
                earlier.factors = np.where(empty, 0.0, earlier.factors)
        use.factors = factors
        self.uses.append(use)
        return True

    def balance(self):
        """Makes no factor larger than `LARGEST_FACTOR`, where one was."""
        largest = np.max([np.abs(use.factors) for use in self.uses], axis=0)
        by = np.where(largest > LARGEST_FACTOR, largest, 1.0)
        self._rows = (self._rows * by[:, None]).astype("float32")
        for use in self.uses:
            use.factors = use.factors / by


def find(model):
    """The kernels of a file, each once.

    Args:
        model: `ModelT`. Where several graphs share a kernel, the one with the largest
            input gets factors of 1.

    Returns:
        List of `SharedKernel`.
    """
    found = []
    for graph in sorted(model.subgraphs, key=_input_size, reverse=True):
        for operator in graph.operators:
            axis = KERNEL_AXES.get(flatbuffer.operator_name(model, operator))
            if axis is None:
                continue
            values = flatbuffer.constant(model, graph, operator.inputs[1])
            if values is None or values.dtype != np.float32:
                continue
            use = Use(graph, operator, np.ones(values.shape[axis]))
            if not any(kernel.add(values, axis, use) for kernel in found):
                found.append(SharedKernel(values, axis, use))
    for kernel in found:
        kernel.balance()
    return found


def _factors(reference, rows):
    """float64 (channels,) with `rows = factors * reference`; None where there are none.

    A channel of zeros has the factor 0, or 1 where the reference's is zeros as well.
    """
    channels = np.arange(len(rows))
    pivot = np.abs(reference).argmax(axis=1)
    largest = reference[channels, pivot].astype("float64")
    zero = np.abs(largest) < SMALLEST
    factors = rows[channels, pivot] / np.where(zero, 1.0, largest)
    factors = np.where(zero, 1.0, factors)
    # Cheap, before the whole is compared: a few elements of each channel.
    for part in (slice(0, 4), slice(None)):
        expected = factors[:, None] * reference[:, part]
        bound = EQUALITY * np.abs(factors * largest)[:, None] + SMALLEST
        if not np.all(np.abs(rows[:, part] - expected) <= bound):
            return None
    return factors


def _rows(values, axis):
    """A kernel as (channels, elements)."""
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _unrows(rows, shape, axis):
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))


def _peaks(rows):
    return np.abs(rows).max(axis=1)


def _input_size(graph):
    return int(np.prod(graph.tensors[graph.inputs[0]].shape))

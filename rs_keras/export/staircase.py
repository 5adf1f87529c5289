"""Quantizers of activations in a float .tflite graph: staircases of comparisons.

LQ-Nets' quantizer is written `SELECT(x > t_n, l_n, … SELECT(x > t_1, l_1, l_0))`.
"""

import dataclasses

import numpy as np

from rs_keras.export import flatbuffer


@dataclasses.dataclass
class Staircase:
    """`levels[number of thresholds below x]`.

    Attributes:
        source, target: indices of the tensors before and behind it.
        thresholds: float64 (n,), ascending.
        levels: float64 (n + 1,), ascending.
        last: the operator that writes `target`.
        others: ids of the operators that it consists of, but the last.
    """

    source: int
    target: int
    thresholds: np.ndarray
    levels: np.ndarray
    last: object
    others: set


def find(model, graph):
    """The staircases of a graph, as {id of their last operator: `Staircase`}."""
    producers = {int(i): op for op in graph.operators for i in op.outputs}
    selects = [
        op
        for op in graph.operators
        if flatbuffer.operator_name(model, op) in ("SELECT", "SELECT_V2")
    ]
    inner = {int(op.inputs[2]) for op in selects}
    found = {}
    for select in selects:
        if int(select.outputs[0]) not in inner:
            staircase = _staircase(model, graph, producers, select)
            if staircase is not None and _is_whole(graph, staircase):
                found[id(select)] = staircase
    return found


def _is_whole(graph, staircase):
    """Whether nothing else reads what is inside of a staircase."""
    parts = {*staircase.others, id(staircase.last)}
    inside = {
        int(i)
        for op in graph.operators
        if id(op) in staircase.others
        for i in op.outputs
    }
    return not any(
        id(op) not in parts and inside & {int(i) for i in op.inputs}
        for op in graph.operators
    )


def _staircase(model, graph, producers, last):
    """What ends in a SELECT; None if that is something else."""
    thresholds, levels, sources, others = [], [], set(), set()
    select = last
    while True:
        compare = producers.get(int(select.inputs[0]))
        level = flatbuffer.constant(model, graph, select.inputs[1])
        if compare is None or level is None or level.size != 1:
            return None
        if flatbuffer.operator_name(model, compare) != "GREATER":
            return None
        threshold = flatbuffer.constant(model, graph, compare.inputs[1])
        if threshold is None or threshold.size != 1:
            return None
        sources.add(int(compare.inputs[0]))
        thresholds.append(float(threshold.reshape(())))
        levels.append(float(level.reshape(())))
        others |= {id(compare), id(select)}
        lowest = flatbuffer.constant(model, graph, select.inputs[2])
        if lowest is not None:
            break
        select = producers.get(int(select.inputs[2]))
        if select is None or not flatbuffer.operator_name(model, select).startswith(
            "SELECT"
        ):
            return None
    if len(sources) != 1 or lowest.size != 1:
        return None
    return Staircase(
        sources.pop(),
        int(last.outputs[0]),
        np.array(thresholds[::-1]),
        np.array([float(lowest.reshape(())), *levels[::-1]]),
        last,
        others - {id(last)},
    )

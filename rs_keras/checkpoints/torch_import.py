"""Weights in and out of the layout of the PyTorch reference of RS-Nets."""

import numpy as np

from rs_keras.checkpoints import torch_names

# How many offending keys an error message lists.
_LISTED = 5


def state_dict(model):
    """The weights of `model` as {reference key: numpy array}, alpha included.

    Args:
        model: `Classifier`.

    Returns:
        Dict of float32 arrays in PyTorch's layouts: kernels (out, in, kh, kw), dense
        (out, in), one array (C,) for each row of a normalization.
    """
    cache = {}

    def value(variable):
        if id(variable) not in cache:
            cache[id(variable)] = np.asarray(variable)
        return cache[id(variable)]

    return {
        key: np.array(torch_names.to_torch(value(variable), row, axes))
        for key, variable, row, axes in torch_names.slots(model)
    }


def load_state_dict(model, arrays):
    """Sets every weight of `model` from {reference key: array}; strict both ways.

    Counters (`num_batches_tracked`) are ignored. A dict without "alpha" (a network
    that was trained without the ensemble) leaves alpha as it is.

    Args:
        model: `Classifier`.
        arrays: dict of arrays in PyTorch's layouts; see `state_dict`.

    Raises:
        ValueError: keys are missing, unexpected, or of another shape; the model is
            then left unchanged.
    """
    arrays = {
        key: np.asarray(value)
        for key, value in arrays.items()
        if not key.endswith("num_batches_tracked")
    }
    slots = list(torch_names.slots(model))
    expected = {key for key, *_ in slots}
    _refuse("missing", sorted(expected - set(arrays) - {"alpha"}))
    _refuse("unexpected", sorted(set(arrays) - expected))

    values, wrong_shapes = {}, []
    for key, variable, row, axes in slots:
        if key not in arrays:
            continue
        name = id(variable)
        if name not in values:
            values[name] = (variable, np.array(variable))
        target = values[name][1] if row is None else values[name][1][row]
        array = arrays[key]
        if array.ndim != target.ndim or (
            torch_names.from_torch(array, axes).shape != target.shape
        ):
            wanted = torch_names.to_torch(target, None, axes).shape
            wrong_shapes.append(f"{key} is {array.shape}, not {wanted}")
            continue
        target[...] = torch_names.from_torch(array, axes)
    _refuse("mis-shaped", wrong_shapes)
    for variable, value in values.values():
        variable.assign(value)


def _refuse(what, keys):
    if keys:
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        raise ValueError(
            "The state dict must hold exactly the weights of the model. Received: "
            f"{len(keys)} {what} keys: {', '.join(keys[:_LISTED])}{more}"
        )

"""Weights in and out of the layout of the PyTorch reference of RS-Nets."""

import numpy as np

from rs_keras.checkpoints import strict
from rs_keras.checkpoints import torch_names


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
        key: np.array(strict.to_foreign(value(variable), row, axes))
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
    strict.assign(slots, arrays, optional={"alpha"}, what="The state dict")

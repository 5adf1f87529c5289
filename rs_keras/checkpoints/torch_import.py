"""Weights in and out of the layout of the PyTorch reference of RS-Nets."""

import re

import numpy as np

from rs_keras.checkpoints import strict
from rs_keras.checkpoints import torch_names
from rs_keras.checkpoints import torch_plain


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
    slots = list(torch_names.slots(model))
    strict.assign(slots, _weights(arrays), optional={"alpha"}, what="The state dict")


def load_checkpoint(model, arrays, *, reset_head=False):
    """`load_state_dict`, also of ordinary networks.

    Args:
        model: `Classifier`; a ResNet or MobileNetV2.
        arrays: dict of arrays in PyTorch's layouts: of the authors' code, or of
            torchvision or timm, whose batch normalizations are copied to every row.
        reset_head: leave the head as it is.

    Raises:
        ValueError: as `load_state_dict`; the model is then left unchanged.
    """
    arrays = _weights(arrays)
    slots = list(torch_names.slots(model))
    if not torch_plain.is_official(arrays):
        slots = list(torch_plain.slots(model, arrays))
    if reset_head:
        mine = {id(weight) for weight in model.head.weights}
        heads = {key for key, variable, *_ in slots if id(variable) in mine}
        slots = [slot for slot in slots if slot[0] not in heads]
        arrays = {key: array for key, array in arrays.items() if key not in heads}
    strict.assign(slots, arrays, optional={"alpha"}, what="The checkpoint")


def branches(arrays):
    """How many rows each batch normalization of a state dict has; None for plain."""
    if not torch_plain.is_official(arrays):
        return None
    rows = {re.search(r"\.bn_(\d+)\.", key) for key in arrays}
    return len({int(match[1]) for match in rows if match})


def num_classes(arrays):
    """Those of the head of a state dict; ValueError if it has none."""
    for key, array in arrays.items():
        if re.fullmatch(r"(fc|classifier)(\.1)?(\.module)?\.weight", key):
            return int(array.shape[0])
    raise ValueError(
        "The checkpoint must have a head: fc.weight or classifier.weight, with or "
        f"without the reference's .module. Received: keys={tuple(arrays)[:3]}"
    )


def _weights(arrays):
    """Without counters, as numpy arrays."""
    found = {
        key: np.asarray(value)
        for key, value in arrays.items()
        if not key.endswith("num_batches_tracked")
    }
    wrong = [key for key, array in found.items() if array.dtype.kind not in "fiu"]
    if wrong:
        raise ValueError(
            "The state dict must hold real numbers. "
            f"Received: {wrong[0]} of {found[wrong[0]].dtype}"
        )
    return found

"""Foreign arrays into a model by name: every one of them, or none."""

import numpy as np

# How many offending keys an error message lists.
_LISTED = 5


def assign(slots, arrays, *, optional=(), what):
    """Sets variables from {foreign key: array}; strict both ways.

    Args:
        slots: list of (foreign key, variable, row, axes): `row` is the row of a stacked
            variable or None; `axes` permutes our array into the foreign layout, None
            where both are the same.
        arrays: dict of numpy arrays.
        optional: keys that may be missing; their variables stay as they are.
        what: what the arrays are called in an error message.

    Raises:
        ValueError: keys are missing, unexpected, of another shape, or hold values that
            are not finite; the variables are then left unchanged.
    """
    expected = {key for key, *_ in slots}
    _refuse(what, "missing", sorted(expected - set(arrays) - set(optional)))
    _refuse(what, "unexpected", sorted(set(arrays) - expected))

    values, wrong_shapes, not_finite = {}, [], []
    for key, variable, row, axes in slots:
        if key not in arrays:
            continue
        name = id(variable)
        if name not in values:
            values[name] = (variable, np.array(variable))
        target = values[name][1] if row is None else values[name][1][row, ...]
        array = arrays[key]
        if array.ndim != target.ndim or _ours(array, axes).shape != target.shape:
            wanted = to_foreign(target, None, axes).shape
            wrong_shapes.append(f"{key} is {array.shape}, not {wanted}")
            continue
        if not np.isfinite(array).all():
            not_finite.append(key)
        target[...] = _ours(array, axes)
    _refuse(what, "mis-shaped", wrong_shapes)
    _refuse(what, "not finite", not_finite)
    for variable, value in values.values():
        variable.assign(value)


def to_foreign(array, row, axes):
    """One array of ours (already numpy) in the foreign shape and layout."""
    array = array if row is None else array[row]
    return array if axes is None else np.ascontiguousarray(np.transpose(array, axes))


def _ours(array, axes):
    """The inverse of `to_foreign`, for one row."""
    return array if axes is None else np.transpose(array, np.argsort(axes))


def _refuse(what, how, keys):
    if keys:
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        raise ValueError(
            f"{what} must hold exactly the weights of the model. Received: "
            f"{len(keys)} {how} keys: {', '.join(keys[:_LISTED])}{more}"
        )

"""The arithmetic of resolutions: order, names, neighbours and the validation crop.

Pure Python, no Keras: models, data and command lines must agree on these numbers.
"""

import numbers

# The share of the shorter side that validation keeps (RS-Nets, section 4.1).
CENTRE_CROP_FRACTION = 0.875
# What a batch holds whose smaller images are made by the network: the largest images,
# and which branches have them mirrored, (N, branches).
IMAGE, MIRRORED = "image", "mirrored"


def is_integer(value):
    """True for a Python or numpy integer that is not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_resolutions(resolutions, *, views=1):
    """Returns `resolutions` as a tuple of ints in descending order.

    Args:
        resolutions: iterable of positive, distinct ints, in pixels.
        views: how often a single resolution is repeated (RS-Nets, Table 6); more
            than one view needs exactly one resolution.

    Raises:
        ValueError: where one of these rules is broken.
    """
    try:
        values = tuple(resolutions)
    except TypeError:
        values = ()
    rule = "`resolutions` must be distinct positive integers, in pixels"
    if (
        isinstance(resolutions, str)
        or not values
        or not all(is_integer(r) and r > 0 for r in values)
        or len(set(values)) != len(values)
    ):
        raise ValueError(f"{rule}. Received: resolutions={resolutions!r}")
    if not is_integer(views) or views < 1:
        raise ValueError(f"`views` must be a positive integer. Received: views={views}")
    if views > 1 and len(values) != 1:
        raise ValueError(
            f"More than one view needs exactly one resolution. Received: "
            f"views={views}, resolutions={resolutions!r}"
        )
    return tuple(sorted((int(r) for r in values), reverse=True))


def branch_keys(resolutions, views=1):
    """The names of a network's branches, in the order of its rows.

    A branch is named by its resolution (an int); the views of a single resolution are
    named `"224_view1"`, `"224_view2"`, ….
    """
    if views == 1:
        return tuple(resolutions)
    return tuple(f"{resolutions[0]}_view{i + 1}" for i in range(views))


def interpolation(resolution, resolutions):
    """The two rows between which a resolution lies: (upper, lower, weight of upper).

    The papers' rule: linear between the two neighbouring resolutions; outside the
    range the nearest one. `resolutions` is descending.
    """
    last = len(resolutions) - 1
    upper = max(sum(r >= resolution for r in resolutions) - 1, 0)
    lower = min(upper + 1, last)
    if lower == upper or resolution >= resolutions[0]:
        return upper, upper, 1.0
    low = resolutions[lower]
    return upper, lower, (resolution - low) / (resolutions[upper] - low)


def nearest(resolution, resolutions):
    """`interpolation` by the nearest row alone; of two as near the larger resolution.

    Proxy inference: what a network did not train it does as its nearest resolution.
    """
    upper, lower, weight = interpolation(resolution, resolutions)
    row = upper if weight >= 0.5 else lower
    return row, row, 1.0


def validation_size(height, width, resolution, *, minimum=min):
    """The size to which validation resizes an image before it crops the centre.

    The shorter side becomes `int(resolution / 0.875)`; the longer side keeps the
    proportion, rounded down as the reference does. `minimum` is that of the library in
    which sizes come as tensors.
    """
    side = int(resolution / CENTRE_CROP_FRACTION)
    shorter = minimum(height, width)
    return side * height // shorter, side * width // shorter


def centre_offset(size, resolution):
    """First row (or column) of the centre crop; halves go to even (the reference)."""
    return int(round((size - resolution) / 2.0))

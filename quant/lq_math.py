"""The arithmetic of LQ-Nets' learned quantizers, as pure functions.

Zhang et al., LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural
Networks, ECCV 2018. A quantizer of K bits has a basis v of K floats. A code is K signs
(weights, {-1, +1}) or K bits (activations, {0, 1}); its level is the inner product
with the basis (Eq. 3), and a value is quantized to the nearest level (Eq. 4), a tie to
the lower one.

Everywhere `kind` is "weights" (x with its channels last, basis (K, C): a basis for
each channel) or "activations" (x of any shape, basis (K, 1): one for the tensor).
Everything is float32. No tensor of the size levels x elements of x is ever held.
"""

import math

import numpy as np
from keras import ops

KINDS = ("weights", "activations")
MAX_BITS = 8

# The reference's ridge on the normal equations of the weights; on those of the
# activations, singular as soon as a bit is never set, it has none.
WEIGHT_RIDGE = 1e-4
# As a share of the elements: what float32 needs to tell a singular matrix from noise,
# and far below what a basis is known to.
MINIMUM_RIDGE = 1e-6

# From 2**5 levels on a search and a scatter beat a comparison for each level (CPU).
_FEW_LEVELS = 16


def codes(bits, kind):
    """All codes of K bits, least significant bit first: float32 numpy (2**K, K)."""
    check_kind(kind)
    check_bits(bits)
    binary = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1
    signed = 2 * binary - 1 if kind == "weights" else binary
    return signed.astype("float32")


def levels(basis, kind):
    """The levels of a basis (K, C), ascending in each channel: (2**K, C)."""
    return ops.sort(_unsorted_levels(basis, kind), axis=0)


def thresholds(levels):
    """Midpoints between neighbouring levels: (2**K - 1, C)."""
    return (levels[1:] + levels[:-1]) / 2


def level_indices(x, basis, kind):
    """Which of the ascending levels each element is quantized to: int32, as x."""
    _check_basis(x, basis, kind)
    return _indices(x, thresholds(levels(basis, kind)))


def quantize(x, basis, kind):
    """x, each element replaced by the nearest level; differentiable in x.

    The gradient is straight-through: for weights the identity; for activations 1 up
    to the largest level and 0 above it. The basis gets none: it is fitted.

    Args:
        x: float32 tensor; for weights with its channels last.
        basis: float32 (K, C) for weights, (K, 1) for activations.
        kind: "weights" or "activations".

    Returns:
        Tensor as x, whose elements are levels exactly.

    Raises:
        ValueError: an unknown kind, or a basis that does not fit x.
    """
    _check_basis(x, basis, kind)

    @ops.custom_gradient
    def straight_through(x, basis):
        grid = levels(basis, kind)
        # What the gradient needs is a mask, not x: a quarter of the memory.
        passes = x <= grid[-1] if kind == "activations" else None

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            dx = upstream if passes is None else ops.where(passes, upstream, 0.0)
            return dx, ops.zeros_like(basis)

        return _staircase(x, grid), gradient

    return straight_through(x, ops.stop_gradient(basis))


def fit_basis(x, basis, kind):
    """One least-squares step of QEM (Alg. 1): the best basis for the present codes.

    Args and errors as in `quantize`.

    Returns:
        The new basis, before any averaging, as `basis`.
    """
    return solve_basis(*statistics(x, basis, kind), basis, kind)


def statistics(x, basis, kind):
    """The sums that a fit needs; those of several tensors may be added up.

    Args and errors as in `quantize`.

    Returns:
        gram = sum of b b^T, (C, K, K); residual = sum of b (x - b^T v), (C, K); and
        the count of the elements of a channel, scalar; b being an element's code and
        v the basis. float32.
    """
    _check_basis(x, basis, kind)
    x, basis = ops.stop_gradient(x), ops.stop_gradient(basis)
    raw = ops.transpose(_unsorted_levels(basis, kind))  # (C, L)
    grid = ops.sort(raw, axis=-1)
    # The code of each ascending level: (C, L, K).
    table = ops.convert_to_tensor(codes(basis.shape[0], kind))
    table = ops.take(table, ops.argsort(raw, axis=-1), axis=0)
    borders = (grid[:, 1:] + grid[:, :-1]) / 2
    counts, sums, count = _level_sums(x, borders, kind)  # (C, L) twice, scalar
    weighted = ops.transpose(table * ops.expand_dims(counts, 2), (0, 2, 1))
    gram = ops.matmul(weighted, table)
    # Level by level: a combination of bits that no element has gets exactly nothing.
    errors = sums - counts * grid
    return gram, ops.sum(table * ops.expand_dims(errors, 2), axis=1), count


def solve_basis(gram, residual, count, basis, kind):
    """The basis (K, C) of least squares over what `statistics` summed up.

    Weights: `v + (B^T B + 1e-4 I)^-1 B^T (w - B v)`, v being the present basis, which
    is the reference's `(B^T B + 1e-4 I)^-1 (B^T w + 1e-4 v)`. Activations: the same
    with a ridge of 1e-6 of the elements, where the reference has none and fails once a
    bit is never set. Here what the data do not determine keeps its value; without any
    element all of it. Sums that are not finite leave a basis of activations as it is,
    for mixed_float16 overflows and goes on; that of a kernel's channel becomes NaN, so
    that a kernel that training cannot mend shows in the loss.
    """
    ridge = WEIGHT_RIDGE if kind == "weights" else 0.0
    count = ops.maximum(count, 1.0)
    ridge = ops.maximum(ridge / count, MINIMUM_RIDGE)
    eye = np.eye(basis.shape[0], dtype="float32")
    matrix = gram / count + ridge * eye
    residual = ops.expand_dims(residual, 2) / count  # (C, K, 1)
    # One sum tells of an infinity or a NaN anywhere in a channel.
    finite = ops.sum(matrix, axis=2, keepdims=True) + residual
    finite = ops.isfinite(ops.sum(finite, axis=1, keepdims=True))
    otherwise = 0.0 if kind == "activations" else np.nan
    residual = ops.where(finite, residual, otherwise)
    step = ops.solve(ops.where(finite, matrix, eye), residual)
    return basis + ops.transpose(ops.squeeze(step, 2))


def check_kind(kind):
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}. Received: kind={kind!r}")


def check_bits(bits):
    is_int = isinstance(bits, (int, np.integer)) and not isinstance(bits, bool)
    if not is_int or not 1 <= bits <= MAX_BITS:
        raise ValueError(
            f"`bits` must be an integer from 1 to {MAX_BITS}. Received: bits={bits!r}"
        )


def _check_basis(x, basis, kind):
    check_kind(kind)
    channels = x.shape[-1] if kind == "weights" else 1
    shape = tuple(basis.shape)
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_BITS or shape[1] != channels:
        raise ValueError(
            f"`basis` must have the shape (1..{MAX_BITS}, {channels}) for these {kind}."
            f" Received: x.shape={tuple(x.shape)}, basis.shape={shape}"
        )


def _unsorted_levels(basis, kind):
    return ops.matmul(ops.convert_to_tensor(codes(basis.shape[0], kind)), basis)


def _staircase(x, grid):
    """The level of each element; grid (L, C) ascends."""
    borders = thresholds(grid)
    if grid.shape[0] > _FEW_LEVELS:
        return ops.take(ops.reshape(grid, (-1,)), _flat_indices(x, borders))
    lowest, *higher = ops.unstack(grid)
    y = lowest
    for border, level in zip(ops.unstack(borders), higher, strict=True):
        y = ops.where(x > border, level, y)
    return y


def _indices(x, borders):
    """How many borders (L - 1, C) lie below each element: int32, by bisection.

    Strictly below: a tie goes to the lower level.
    """
    flat = ops.reshape(borders, (-1,))
    channels = borders.shape[-1]
    channel = np.arange(channels, dtype="int32")  # of the last axis
    index = ops.zeros(ops.shape(x), dtype="int32")
    step = (borders.shape[0] + 1) // 2
    while step:
        border = ops.take(flat, (index + (step - 1)) * channels + channel)
        index = index + step * ops.cast(x > border, "int32")
        step //= 2
    return index


def _flat_indices(x, borders):
    """Where the level of each element lies in the flattened levels (L, C)."""
    channels = borders.shape[-1]
    return _indices(x, borders) * channels + np.arange(channels, dtype="int32")


def _level_sums(x, borders, kind):
    """How many elements each level has, and their sum: (C, L) each, float32.

    Also the count of the elements of a channel.
    """
    channels = x.shape[-1] if kind == "weights" else 1
    count = math.prod(ops.shape(x)) / channels
    count = ops.cast(count, x.dtype)
    if borders.shape[-1] >= _FEW_LEVELS:
        return *_scattered_sums(x, ops.transpose(borders), kind), count
    axes = tuple(range(len(x.shape) - (kind == "weights")))
    masks = [x > border for border in ops.unstack(borders, axis=-1)]
    counts = [count + ops.zeros(channels)]
    counts += [ops.sum(ops.cast(mask, x.dtype), axis=axes) for mask in masks]
    sums = [ops.sum(x, axis=axes)]
    sums += [ops.sum(ops.where(mask, x, 0.0), axis=axes) for mask in masks]
    # What lies above a border, less what lies above the next.
    size = len(sums)
    less = np.eye(size, dtype="float32") - np.eye(size, k=-1, dtype="float32")
    return *(
        ops.matmul(
            ops.stack([ops.reshape(v, (channels,)) for v in values], axis=-1), less
        )
        for values in (counts, sums)
    ), count


def _scattered_sums(x, borders, kind):
    # A sum for each level and last-axis channel, also where all share a basis: a
    # float32 sum of all elements in one place would lose digits.
    channels = x.shape[-1]
    where = _indices(x, borders) * channels + np.arange(channels, dtype="int32")
    where = ops.reshape(where, (-1,))
    segments = (borders.shape[0] + 1) * channels
    ones = ops.ones_like(where)
    counts = ops.segment_sum(ones, where, num_segments=segments)
    sums = ops.segment_sum(ops.reshape(x, (-1,)), where, num_segments=segments)
    for values in (ops.cast(counts, x.dtype), sums):
        values = ops.transpose(ops.reshape(values, (-1, channels)))
        if kind == "activations":
            values = ops.sum(values, axis=0, keepdims=True)
        yield values


def initial_basis(kind, bits, fan_out=None):
    """The basis that a quantizer starts with: float32 numpy (K,).

    The reference's: 0.6745 is the third quartile of the standard normal distribution,
    sqrt(2 / n) the deviation of He et al.'s initialization. It matters for the first
    forward pass only, since the first fit replaces it.

    Args:
        kind: "weights" or "activations".
        bits: 1..8.
        fan_out: n, for weights: height x width x output channels.
    """
    check_kind(kind)
    check_bits(bits)
    if kind == "weights":
        scale = 0.6745 * np.sqrt(2 / fan_out) / 2 ** (bits - 1)
    else:
        scale = 0.6745 * 2 / (2**bits - 1)
    return (scale * 2.0 ** np.arange(bits)).astype("float32")

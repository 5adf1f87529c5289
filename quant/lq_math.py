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

import itertools

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
            dx = upstream
            if passes is not None:
                dx = ops.where(passes, upstream, ops.zeros_like(upstream))
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
        gram = sum of b b^T, (K, K, C); residual = sum of b (x - b^T v), (K, C); and
        the count of the elements of a channel, scalar; b being an element's code and
        v the basis. float32.
    """
    _check_basis(x, basis, kind)
    x, basis = ops.stop_gradient(x), ops.stop_gradient(basis)
    raw = _unsorted_levels(basis, kind)
    order = ops.argsort(raw, axis=0)  # (L, C)
    grid = ops.take_along_axis(raw, order, axis=0)  # (L, C)
    # The code of each ascending level.
    table = ops.convert_to_tensor(codes(basis.shape[0], kind))
    table = ops.transpose(ops.take(table, order, axis=0), (1, 2, 0))  # (C, K, L)
    counts, sums = _level_sums(x, thresholds(grid), kind)  # (L, C) each
    counted = table * ops.transpose(counts)[:, None, :]
    gram = ops.matmul(counted, ops.transpose(table, (0, 2, 1)))  # (C, K, K)
    # Level by level: a combination of bits that no element has gets exactly nothing.
    errors = ops.transpose(sums - counts * grid)  # (C, L)
    residual = ops.sum(table * errors[:, None, :], axis=2)  # (C, K)
    return (
        ops.transpose(gram, (1, 2, 0)),
        ops.transpose(residual),
        ops.sum(counts[:, 0]),
    )


def solve_basis(gram, residual, count, basis, kind):
    """The basis (K, C) of least squares over what `statistics` summed up.

    Weights: `v + (B^T B + 1e-4 I)^-1 B^T (w - B v)`, v being the present basis, which
    is the reference's `(B^T B + 1e-4 I)^-1 (B^T w + 1e-4 v)`. Activations: the same
    with a ridge of 1e-6 of the elements, where the reference has none and fails once a
    bit is never set. Here what the data do not determine keeps its value; without any
    element, or with sums that are not finite, all of it.
    """
    ridge = WEIGHT_RIDGE if kind == "weights" else 0.0
    count = ops.maximum(count, 1.0)
    ridge = ops.maximum(ridge / count, MINIMUM_RIDGE)
    eye = ops.eye(basis.shape[0], dtype=basis.dtype)
    matrix = ops.transpose(gram, (2, 0, 1)) / count + ridge * eye  # (C, K, K)
    residual = ops.transpose(residual)[:, :, None] / count  # (C, K, 1)
    finite = ops.all(ops.isfinite(matrix), axis=(1, 2), keepdims=True)
    finite &= ops.all(ops.isfinite(residual), axis=(1, 2), keepdims=True)
    step = ops.solve(ops.where(finite, matrix, eye), ops.where(finite, residual, 0.0))
    return basis + ops.transpose(step[:, :, 0])


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
    """The level of each element."""
    borders = thresholds(grid)
    if grid.shape[0] > _FEW_LEVELS:
        return ops.take(ops.reshape(grid, (-1,)), _positions(x, borders))
    y = ops.where(x > borders[0], grid[1], grid[0])
    for index in range(1, borders.shape[0]):
        y = ops.where(x > borders[index], grid[index + 1], y)
    return y


def _indices(x, borders):
    """How many borders lie below each element: int32, by bisection.

    Strictly below: a tie goes to the lower level.
    """
    flat = ops.reshape(borders, (-1,))
    index = ops.zeros(ops.shape(x), dtype="int32")
    step = (borders.shape[0] + 1) // 2
    while step:
        border = ops.take(flat, _flat_index(index + (step - 1), borders.shape[-1]))
        index = index + step * ops.cast(x > border, "int32")
        step //= 2
    return index


def _positions(x, borders):
    """Where the level of each element lies in the flattened levels (L, C)."""
    return _flat_index(_indices(x, borders), borders.shape[-1])


def _flat_index(row, channels):
    """The position of [row, channel of the last axis] in a flattened (?, C)."""
    return row * channels + ops.arange(channels, dtype="int32")


def _level_sums(x, borders, kind):
    """How many elements each level has, and their sum: (L, C) each, as float32."""
    if borders.shape[0] >= _FEW_LEVELS:
        return _scattered_sums(x, borders, kind)
    axes = tuple(range(len(x.shape) - (kind == "weights")))
    above = [ops.ones_like(x, dtype="bool")]
    above += [x > borders[index] for index in range(borders.shape[0])]
    counts = [ops.sum(ops.cast(mask, x.dtype), axis=axes) for mask in above]
    sums = [ops.sum(ops.where(mask, x, 0.0), axis=axes) for mask in above]
    # What lies above a border, less what lies above the next.
    return tuple(
        ops.reshape(
            ops.stack([*(a - b for a, b in itertools.pairwise(v)), v[-1]]),
            (len(above), -1),
        )
        for v in (counts, sums)
    )


def _scattered_sums(x, borders, kind):
    # A sum for each level and last-axis channel, also where all share a basis: a
    # float32 sum of all elements in one place would lose digits.
    channels = x.shape[-1]
    where = ops.reshape(_flat_index(_indices(x, borders), channels), (-1,))
    segments = (borders.shape[0] + 1) * channels
    ones = ops.ones_like(where)
    counts = ops.segment_sum(ones, where, num_segments=segments)
    sums = ops.segment_sum(ops.reshape(x, (-1,)), where, num_segments=segments)
    counts = ops.reshape(ops.cast(counts, x.dtype), (-1, channels))
    sums = ops.reshape(sums, (-1, channels))
    if kind == "weights":
        return counts, sums
    return (ops.sum(v, axis=1, keepdims=True) for v in (counts, sums))


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

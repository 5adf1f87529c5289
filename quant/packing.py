"""Arrays as bytes and back: kernels as codes and bases, the rest rounded or as it is.

An encoding is "float32", "float16", "int8" or "lq1" to "lq8". All numbers are
little-endian and arrays are in C order.

- "lqK": the basis, float32 (K, channels); then the code of every weight, K bits each,
  one behind the other, the first in the lowest bits of the first byte. Bit k is set
  where the level has +basis[k], and clear where it has -basis[k].
- "int8": a scale for each channel, float32 (channels,); then a code of -127 to 127 for
  each weight, whose value is the product of both.

Channels are the last axis, or, for a depthwise kernel, the last two.
"""

import math
import re

import numpy as np
from keras import ops

from quant import lq_math

FLOATS = {"float32": "<f4", "float16": "<f2"}
_INT8_MAXIMUM = 127


def bits_of(encoding):
    """K of "lqK"; None for any other encoding.

    Raises:
        ValueError: an unknown encoding.
    """
    match = re.fullmatch(rf"lq([1-{lq_math.MAX_BITS}])", str(encoding))
    if match:
        return int(match[1])
    if encoding not in ("int8", *FLOATS):
        raise ValueError(
            "`encoding` must be float32, float16, int8 or lq1 to lq8. "
            f"Received: encoding={encoding!r}"
        )
    return None


def code_bytes(count, bits):
    """The bytes of `count` codes: the last one is filled up with zeros."""
    return -(-count * bits // 8)


def encoded_bytes(count, encoding, channels=0):
    """The bytes of `count` values; the arguments are ints of any size."""
    bits = bits_of(encoding)
    if bits is not None:
        return 4 * bits * channels + code_bytes(count, bits)
    if encoding == "int8":
        return 4 * channels + count
    return count * np.dtype(FLOATS[encoding]).itemsize


def encode(array, encoding, channels=0, basis=None):
    """The bytes of a float32 array.

    Args:
        array: float32 array; its size is a multiple of `channels`.
        encoding: see above.
        channels: int, for "int8" and "lqK".
        basis: float32 (K, channels), for "lqK".

    Raises:
        ValueError: an unknown encoding, or values or levels that are not finite.
    """
    bits = bits_of(encoding)
    array = np.asarray(array, "float32")
    if encoding in FLOATS:
        with np.errstate(over="ignore"):
            rounded = array.astype(FLOATS[encoding])
        _check_finite(rounded, encoding)
        return rounded.tobytes()
    _check_finite(array, encoding)
    array = array.reshape(-1, channels)
    if encoding == "int8":
        scale = np.abs(array).max(axis=0) / np.float32(_INT8_MAXIMUM)
        scale = np.where(scale > 0, scale, np.float32(1)).astype("<f4")
        # A scale among the smallest floats has lost digits: codes may leave the range.
        codes = np.clip(np.rint(array / scale), -_INT8_MAXIMUM, _INT8_MAXIMUM)
        return scale.tobytes() + codes.astype("i1").tobytes()
    basis = np.asarray(basis, "<f4").reshape(bits, channels)
    order, _ = _ascending(basis)
    indices = lq_math.level_indices(ops.convert_to_tensor(array), basis, "weights")
    codes = np.take_along_axis(order, ops.convert_to_numpy(indices), axis=0)
    spread = np.unpackbits(codes.reshape(-1, 1), axis=1, bitorder="little")
    packed = np.packbits(spread[:, :bits], bitorder="little")
    return basis.tobytes() + packed.tobytes()


def decode(data, shape, encoding, channels=0):
    """The inverse of `encode`.

    A kernel of codes comes back as values that its basis quantizes to exactly the
    levels which it had: the levels themselves, but where two of them are neighbours
    among the floats, and so the threshold between them is one of the two.

    Args:
        data: bytes, as many as `encoded_bytes` says.
        shape: tuple of ints.
        encoding, channels: as in `encode`.

    Returns:
        (float32 array of that shape, basis float32 (K, channels) or None).

    Raises:
        ValueError: an unknown encoding, a wrong number of bytes, or levels that are not
            finite.
    """
    bits = bits_of(encoding)
    count = math.prod(shape)
    wanted = encoded_bytes(count, encoding, channels)
    if len(data) != wanted:
        raise ValueError(
            f"`data` must be {wanted} bytes for {encoding} of the shape {shape}. "
            f"Received: {len(data)} bytes"
        )
    if encoding in FLOATS:
        array = np.frombuffer(data, FLOATS[encoding]).astype("float32")
        return array.reshape(shape), None
    if encoding == "int8":
        scale = np.frombuffer(data, "<f4", channels)
        codes = np.frombuffer(data, "i1", offset=4 * channels).reshape(-1, channels)
        return (codes.astype("float32") * scale).reshape(shape), None
    basis = np.frombuffer(data, "<f4", bits * channels).reshape(bits, channels)
    basis = basis.astype("float32")
    packed = np.frombuffer(data, "u1", offset=4 * bits * channels)
    spread = np.unpackbits(packed, count=count * bits, bitorder="little")
    codes = np.packbits(spread.reshape(count, bits), axis=1, bitorder="little")
    values = np.take_along_axis(_values(basis), codes.reshape(-1, channels), axis=0)
    return values.reshape(shape), basis


def _values(basis):
    """For each code a value that is quantized to its level: (2**K, channels)."""
    order, grid = _ascending(basis)
    borders = ops.convert_to_numpy(lq_math.thresholds(ops.convert_to_tensor(grid)))
    # The largest value that belongs to each level; the last has no largest.
    last = np.nextafter(borders[-1:], np.float32(np.inf))
    inside = np.concatenate([borders, last])
    again = ops.convert_to_numpy(lq_math.quantize(grid, basis, "weights"))
    values = np.empty_like(grid)
    np.put_along_axis(values, order, np.where(again == grid, grid, inside), axis=0)
    return values


def _ascending(basis):
    """(codes uint8, levels float32) in ascending order of levels: (2**K, channels)."""
    # As `lq_math.levels` computes them, to the last bit, which numpy's would not be.
    table = lq_math.codes(len(basis), "weights")
    levels = ops.convert_to_numpy(ops.matmul(table, ops.convert_to_tensor(basis)))
    _check_finite(levels, "levels")
    order = np.argsort(levels, axis=0, kind="stable")
    return order.astype("uint8"), np.take_along_axis(levels, order, axis=0)


def _check_finite(values, what):
    if not np.isfinite(values).all():
        raise ValueError(
            f"Weights must be finite, as {what}, too. Received: values that are not"
        )

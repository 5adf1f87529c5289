"""Codes and bases as bytes: what comes back, how long it is, and how it is laid out."""

import numpy as np
import pytest
from keras import ops

from quant import lq_math
from quant import packing

BITS = range(1, 9)


def draw(bits, channels=6, seed=0):
    generator = np.random.default_rng(seed)
    kernel = generator.normal(size=(3, 3, 5, channels)).astype("float32")
    basis = generator.normal(size=(bits, channels)).astype("float32") / 2
    return kernel, basis


def degenerate(bits):
    """Channels whose levels are all zero, equal in pairs, or neighbouring floats."""
    kernel, basis = draw(bits)
    basis[:, 0] = 0
    basis[:, 1] = basis[0, 1]
    for channel, tiny in ((2, 1e-8), (3, 3e-8), (4, 6e-8)):
        basis[:, channel] = tiny
        basis[0, channel] = 1
        kernel[..., channel] = 1 + kernel[..., channel] * 3e-7
    basis[:, 5] *= 1e-36
    kernel[..., 5] *= 1e-36
    kernel[:, 0, :, 0] = 0
    return kernel, basis


def quantized(kernel, basis):
    kernel, basis = map(ops.convert_to_tensor, (kernel, basis))
    return ops.convert_to_numpy(lq_math.quantize(kernel, basis, "weights"))


def there_and_back(array, encoding, channels, basis=None):
    data = packing.encode(array, encoding, channels, basis)
    assert len(data) == packing.encoded_bytes(array.size, encoding, channels)
    return packing.decode(data, array.shape, encoding, channels)


@pytest.mark.parametrize("bits", BITS)
def test_kernels_come_back_as_their_levels(bits):
    kernel, basis = draw(bits)
    found, found_basis = there_and_back(kernel, f"lq{bits}", 6, basis)
    assert found.dtype == found_basis.dtype == np.float32
    np.testing.assert_array_equal(found_basis, basis)
    np.testing.assert_array_equal(found, quantized(kernel, basis))
    np.testing.assert_array_equal(quantized(found, basis), found)


@pytest.mark.parametrize("bits", BITS)
def test_degenerate_bases_give_the_same_quantized_kernels(bits):
    kernel, basis = degenerate(bits)
    found, _ = there_and_back(kernel, f"lq{bits}", 6, basis)
    expected = quantized(kernel, basis)
    np.testing.assert_array_equal(quantized(found, basis), expected)
    if bits > 1:
        # Levels that are neighbouring floats are not idempotent, so that a level
        # itself would come back as another one.
        assert (quantized(expected, basis) != expected).any()


def test_depthwise_kernels_have_a_basis_for_each_channel():
    generator = np.random.default_rng(1)
    kernel = generator.normal(size=(3, 3, 4, 2)).astype("float32")
    basis = generator.normal(size=(2, 8)).astype("float32")
    found, _ = there_and_back(kernel, "lq2", 8, basis)
    expected = quantized(kernel.reshape(3, 3, 1, 8), basis).reshape(kernel.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_codes_are_the_signs_of_the_basis_in_little_endian_fields(bits):
    kernel, basis = draw(bits)
    data = packing.encode(kernel, f"lq{bits}", 6, basis)
    head, codes = (
        data[: 4 * basis.size],
        int.from_bytes(data[4 * basis.size :], "little"),
    )
    np.testing.assert_array_equal(np.frombuffer(head, "<f4").reshape(bits, 6), basis)
    expected = quantized(kernel, basis).reshape(-1, 6)
    for index in range(kernel.size):
        code = codes >> (index * bits)
        signs = [1 if code >> k & 1 else -1 for k in range(bits)]
        level = np.dot(signs, basis[:, index % 6].astype("float64"))
        np.testing.assert_allclose(level, expected.flat[index], rtol=1e-5, atol=1e-6)
    assert codes >> (kernel.size * bits) == 0


def test_a_weight_takes_its_bits_and_no_more():
    for bits in BITS:
        for count in (1, 7, 8, 1000):
            size = packing.encoded_bytes(count * 3, f"lq{bits}", 3) - 4 * bits * 3
            assert size == packing.code_bytes(count * 3, bits)
            assert 0 <= 8 * size - 3 * count * bits < 8


def test_int8_is_symmetric_with_a_scale_for_each_channel():
    kernel, _ = draw(1)
    kernel[..., 0] = 0
    kernel[..., 1] *= 1e-3
    found, basis = there_and_back(kernel, "int8", 6)
    scale = np.abs(kernel).max(axis=(0, 1, 2)) / np.float32(127)
    expected = np.rint(kernel / np.where(scale > 0, scale, 1)) * scale
    np.testing.assert_array_equal(found, expected.astype("float32"))
    assert (np.abs(found - kernel) <= scale / 2 * (1 + 1e-5)).all()
    assert basis is None and (found[..., 0] == 0).all()
    np.testing.assert_array_equal(there_and_back(found, "int8", 6)[0], found)


def test_int8_codes_stay_in_range_among_the_smallest_floats():
    kernel = np.float32([[1e-44, -1e-44], [1e-45, 0]])
    assert np.isfinite(there_and_back(kernel, "int8", 2)[0]).all()


def test_floats_come_back_exactly_or_rounded_to_half_precision():
    kernel, _ = draw(1)
    np.testing.assert_array_equal(there_and_back(kernel, "float32", 0)[0], kernel)
    half = kernel.astype("float16").astype("float32")
    np.testing.assert_array_equal(there_and_back(kernel, "float16", 0)[0], half)


@pytest.mark.parametrize("encoding", ["lq0", "lq9", "lq", "int4", None, "lq2\n"])
def test_unknown_encodings_are_refused(encoding):
    with pytest.raises(ValueError, match="`encoding` must be .* Received: encoding="):
        packing.encoded_bytes(1, encoding)


@pytest.mark.parametrize("encoding", ["lq2", "int8", "float16", "float32"])
def test_wrong_lengths_and_values_that_are_not_finite_are_refused(encoding):
    kernel, basis = draw(2)
    data = packing.encode(kernel, encoding, 6, basis)
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(ValueError, match="`data` must be .* Received: "):
            packing.decode(wrong, kernel.shape, encoding, 6)
    kernel[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="Weights must be finite"):
        packing.encode(kernel, encoding, 6, basis)


def test_levels_beyond_float32_are_refused():
    kernel, basis = draw(2)
    with pytest.raises(ValueError, match="Weights must be finite, as levels"):
        packing.encode(kernel, "lq2", 6, basis * 0 + 3e38)
    with pytest.raises(ValueError, match="Weights must be finite, as float16"):
        packing.encode(kernel * 1e6, "float16")

"""Pixels are those that a person sees, as Pillow shows them; bombs are refused."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageOps

from rs_keras.data import decoding
from rs_keras.data import headers
from tests.data import nasty

# Where colours are stored at half the resolution, decoders may differ a little.
CHROMA = {"subsampling": 0, "quality": 95}


@pytest.fixture(scope="module")
def decode():
    return tf.function(decoding.decode, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.fixture(scope="module")
def picture():
    """Smooth, of another size each way, and different in all corners."""
    y, x = np.mgrid[0:70, 0:100]
    channels = (2 * x, 3 * y, 120 + 60 * np.sin(x / 9) * np.cos(y / 7))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(orientation, order="<", kind=3, offset=8):
    """An EXIF block with another entry before and behind the orientation."""
    value = struct.pack(f"{order}H2x", orientation)
    entries = [
        struct.pack(f"{order}HHI4s", 0x0100, 3, 1, struct.pack(f"{order}H2x", 7)),
        struct.pack(f"{order}HHI4s", 0x0112, kind, 1, value),
        struct.pack(f"{order}HHI4s", 0x0131, 2, 4, b"abc\0"),
    ]
    head = b"II*\0" if order == "<" else b"MM\0*"
    return (
        head
        + struct.pack(f"{order}I", offset)
        + b"\0" * (offset - 8)
        + struct.pack(f"{order}H", len(entries))
        + b"".join(entries)
        + b"\0\0\0\0"
    )


def with_exif(jpeg, block, before=b""):
    """A JPEG with an EXIF segment, behind other segments."""
    name = b"Exif\0\0" + block
    segment = b"\xff\xe1" + struct.pack(">H", len(name) + 2) + name
    return jpeg[:2] + before + segment + jpeg[2:]


def as_seen(encoded):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_pillow_turns_them(
    orientation, order, decode, picture
):
    plain = saved(picture, "JPEG", **CHROMA)
    app0 = plain[2:20]
    for before, offset in ((b"", 8), (app0 + b"\xff\xe2\0\x06icc!", 26)):
        encoded = with_exif(plain, tiff(orientation, order, offset=offset), before)
        whole = decode(encoded).numpy()
        np.testing.assert_array_equal(whole, as_seen(encoded))
        # A window in what is seen; no more of the file is decoded.
        height, width = whole.shape[:2]
        window = (height // 5, width // 3, height // 2, width // 4)

        def choose(h, w, window=window, size=(height, width)):
            tf.debugging.assert_equal([h, w], size)
            return window

        part = decoding.decode_crop(tf.constant(encoded), choose).numpy()
        top, left, h, w = window
        np.testing.assert_array_equal(part, whole[top : top + h, left : left + w])


@pytest.mark.parametrize(
    "block",
    [
        tiff(0),
        tiff(9),
        tiff(99),
        tiff(6, kind=4),
        tiff(6)[:-26],
        tiff(6).replace(b"II*", b"XX*"),
        tiff(6, offset=8)[:4] + b"\xff\xff\xff\xff",
        tiff(6)[:8] + b"\xff\xff",
        b"",
        b"II",
    ],
)
def test_broken_exif_is_passed_over(block, decode, picture):
    plain = saved(picture, "JPEG", **CHROMA)
    expected = decode(plain).numpy()
    np.testing.assert_array_equal(decode(with_exif(plain, block)), expected)


def test_random_exif_does_no_harm(decode, picture):
    generator, plain = np.random.default_rng(0), saved(picture, "JPEG", **CHROMA)
    valid = tiff(6)
    for _ in range(200):
        block = bytearray(valid)
        for place in generator.integers(0, len(block), 4):
            block[place] = generator.integers(0, 256)
        block = bytes(block[: generator.integers(0, len(block) + 1)])
        orientation = int(headers.jpeg_orientation(with_exif(plain, block)))
        assert 1 <= orientation <= 8
        assert 1 <= int(headers.webp_orientation(b"RIFF" + block)) <= 8


def test_other_kinds_are_read_as_pillow_reads_them(decode, picture):
    rgba = picture.copy()
    rgba.putalpha(picture.getchannel(0))
    palette = picture.quantize(200)
    cases = {
        "gray": saved(picture.convert("L"), "JPEG", **CHROMA),
        "progressive": saved(picture, "JPEG", progressive=True, **CHROMA),
        "cmyk": saved(picture.convert("CMYK"), "JPEG", **CHROMA),
        "palette png": saved(palette, "PNG"),
        "palette png, transparent": saved(palette, "PNG", transparency=3),
        "rgba png": saved(rgba, "PNG"),
        "gray and alpha png": saved(rgba.convert("LA"), "PNG"),
        "1 bit png": saved(picture.convert("1"), "PNG"),
        "bmp": saved(picture, "BMP"),
        "gray bmp": saved(picture.convert("L"), "BMP"),
        "palette bmp": saved(palette, "BMP"),
        "rgba bmp": saved(rgba, "BMP"),
        "gif": saved(palette, "GIF"),
        "transparent gif": saved(palette, "GIF", transparency=3),
        "animated gif": saved(palette, "GIF", save_all=True, append_images=[rgba] * 3),
        "webp": saved(picture, "WEBP"),
        "lossless webp": saved(picture, "WEBP", lossless=True),
        "rgba webp": saved(rgba, "WEBP"),
        "animated webp": saved(picture, "WEBP", save_all=True, append_images=[rgba]),
        "turned webp": saved(picture, "WEBP", exif=tiff(6)),
        "turned webp, named": saved(picture, "WEBP", exif=b"Exif\0\0" + tiff(8)),
    }
    for name, encoded in cases.items():
        found, expected = decode(encoded).numpy().astype(int), as_seen(encoded)
        assert found.shape == expected.shape, name
        assert np.abs(found - expected).max() <= 1, name
        # A crop is one of what is seen.
        window = decoding.decode_crop(tf.constant(encoded), lambda h, w: (3, 5, 20, 30))
        np.testing.assert_allclose(window, found[3:23, 5:35], atol=1, err_msg=name)


def test_of_16_bits_the_upper_8_remain(decode):
    values = np.random.default_rng(0).integers(0, 2**16, (20, 30)).astype(np.uint16)
    found = decode(saved(Image.fromarray(values), "PNG")).numpy()
    np.testing.assert_array_equal(found, np.repeat(values[..., None] >> 8, 3, axis=2))


def test_cmyk_with_inverted_and_with_subsampled_colours(decode):
    for name in ("jpeg_cmyk.jpg", "jpeg_cmyk_generated.jpg"):
        encoded = (nasty.files() / name).read_bytes()
        found = decode(encoded).numpy().astype(int)
        assert np.abs(found - as_seen(encoded)).max() <= 1


def test_a_gif_that_ends_in_its_first_frame_is_refused(decode, picture):
    encoded = saved(picture.quantize(64), "GIF")
    assert encoded[-1:] == b"\x3b"
    expected = decode(encoded).numpy()
    # Nothing behind the frame matters.
    for other in (encoded[:-1], encoded + b"more", encoded[:-1] + b"\x2c\xff\xff"):
        np.testing.assert_array_equal(decode(other), expected)
    for length in (4, 12, 13, 100, 300, len(encoded) // 2, len(encoded) - 2):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(encoded[:length])


def _claiming(kind, height, width, picture):
    """A whole file, whose header then lies about its size."""
    if kind == "GIF frame":
        data = bytearray(saved(picture.quantize(4), "GIF"))
        place = data.index(b"\x2c\0\0\0\0") + 5
        data[place : place + 4] = struct.pack("<HH", width, height)
        return bytes(data)
    options = {"VP8L": {"lossless": True}, "VP8X": {"exif": b"none"}}.get(kind, {})
    name = "WEBP" if kind.startswith("VP8") else kind
    image = picture.quantize(4) if kind == "GIF" else picture
    data = bytearray(saved(image, name, **options))
    if kind == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", height, width)
    elif kind == "PNG":
        data[16:24] = struct.pack(">II", width, height)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, -height)
    elif kind == "VP8 ":
        data[26:30] = struct.pack("<HH", width, height)
    elif kind == "VP8L":
        data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    elif kind == "VP8X":
        data[24:30] = (
            struct.pack("<II", width - 1, height - 1)[:3]
            + struct.pack("<I", height - 1)[:3]
        )
    return bytes(data)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "GIF frame", "BMP", "VP8 ", "VP8L", "VP8X"]
)
def test_headers_that_claim_too_much_are_refused_before_decoding(kind, decode, picture):
    encoded = _claiming(kind, 12_000, 10_001, picture)
    with pytest.raises(tf.errors.InvalidArgumentError, match=decoding.TOO_LARGE):
        decode(encoded)
    with pytest.raises(tf.errors.InvalidArgumentError, match=decoding.TOO_LARGE):
        decoding.decode_crop(tf.constant(encoded), lambda h, w: (0, 0, 8, 8))
    # What is claimed is read right: within the limit another error follows, or none.
    if kind not in ("JPEG", "GIF frame"):
        small = _claiming(kind, 300, 200, picture)
        assert headers.claimed_size(small).numpy().tolist() == [300, 200]
        assert headers.claimed_size(small[:15]).shape == (2,)


def test_no_short_file_is_a_danger(picture):
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        data = saved(picture, kind)
        for length in range(0, 34):
            with pytest.raises(tf.errors.InvalidArgumentError):
                decoding.decode(tf.constant(data[:length]))

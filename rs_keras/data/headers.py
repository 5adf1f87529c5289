"""What the first bytes of an image file claim: its kind, its size, how it was held.

Graph functions of scalar strings. All are made for files that lie: nothing is read
that is not there, and loops are bounded.
"""

import numpy as np
import tensorflow as tf

# What a file begins with, by kind.
MAGIC = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "WebP": b"RIFF",
}
# Bytes of a header that are looked at; WebP's largest ends here.
LENGTH = 30
# Where a JPEG's EXIF must begin: the standard wants it right behind the first marker.
EXIF_WITHIN = 65536
# Entries of an EXIF directory: cameras write about a dozen.
MAXIMUM_ENTRIES = 256
_SHORT, _ORIENTATION = 3, 0x0112


def apart(function):
    """A graph function that is called as one operation, not copied into its caller.

    For branches that are rarely taken: TensorFlow visits every operation of a branch,
    also of one that is not taken.
    """
    return tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )


def is_kind(image, kind):
    """Whether the bytes begin as a file of this kind: scalar bool."""
    found = tf.strings.substr(image, 0, len(MAGIC[kind])) == MAGIC[kind]
    if kind == "WebP":
        # Sounds begin with RIFF, too.
        length = tf.strings.length(image)
        place = tf.minimum(8, length)
        found = found & (tf.strings.substr(image, place, 4) == b"WEBP")
    return found


def claimed_size(image):
    """(height, width) that the header of a PNG, GIF, BMP or WebP file claims.

    The header alone is read. Of a GIF it is that of the canvas.

    Args:
        image: scalar string.

    Returns:
        Tensor (2,) int64; zeros where no known header stands.
    """
    length = tf.strings.length(image)
    head = tf.cast(_bytes(tf.strings.substr(image, 0, LENGTH)), tf.int64)
    head = tf.pad(head, [[0, LENGTH - tf.size(head)]])
    # One product instead of an operation for every byte: graphs stay small.
    png, gif, bmp, lossy, extended, bits = tf.unstack(tf.linalg.matvec(_SIZES, head))
    # A negative height says that the first line is the top one.
    bmp = tf.abs(tf.where(bmp < 2**31, bmp, bmp - 2**32))
    lossless = tf.stack([bits[0] // 2**14, bits[0]]) % 2**14 + 1
    form = tf.strings.substr(image, tf.minimum(12, length), 4)
    webp = tf.where(form == b"VP8L", lossless, lossy % 2**14)
    webp = tf.where(form == b"VP8X", extended + 1, webp)
    size = tf.zeros((2,), tf.int64)
    for kind, claimed in (("PNG", png), ("GIF", gif), ("BMP", bmp), ("WebP", webp)):
        size = tf.where(is_kind(image, kind), claimed, size)
    return size


def _weights(*numbers):
    """Rows that make numbers of a header, whose bytes are named little end first."""
    rows = np.zeros((len(numbers), LENGTH), np.int64)
    for row, places in zip(rows, numbers, strict=True):
        row[list(places)] = 256 ** np.arange(len(places))
    return rows


# (height, width) of a PNG, a GIF, a BMP, a lossy and an extended WebP; both in the bits
# of one number of a lossless one.
_SIZES = np.stack(
    [
        _weights((23, 22, 21, 20), (19, 18, 17, 16)),
        _weights((8, 9), (6, 7)),
        _weights((22, 23, 24, 25), (18, 19, 20, 21)),
        _weights((28, 29), (26, 27)),
        _weights((27, 28, 29), (24, 25, 26)),
        _weights((21, 22, 23, 24), ()),
    ]
)


def bmp_colours(image):
    """The colours of a BMP of 8 bits: (256, 3) uint8, those that are missing black."""
    length = tf.strings.length(image)
    header = tf.strings.substr(image, tf.minimum(14, length), 4)
    header = tf.pad(_bytes(header), [[0, 4 - tf.strings.length(header)]])
    # Headers are 40 to 124 bytes long.
    size = tf.cast(header[0], tf.int32)
    table = tf.strings.substr(image, tf.minimum(14 + size, length), 4 * 256)
    table = _bytes(table)
    table = tf.reshape(tf.pad(table, [[0, 4 * 256 - tf.shape(table)[0]]]), (256, 4))
    return table[:, 2::-1]


def is_plain_jpeg(image):
    """Whether a file begins as JPEGs without EXIF mostly do: JFIF's segment, tables."""
    head = tf.strings.substr(image, 0, 4)
    length = tf.strings.length(image)
    behind = tf.strings.substr(image, tf.minimum(20, length), 2)
    return (head == b"\xff\xd8\xff\xe0") & (behind == b"\xff\xdb")


def jpeg_orientation(image):
    """The EXIF orientation of a JPEG, 1 to 8; 1 where none, or no valid one, is noted.

    Args:
        image: scalar string.

    Returns:
        Scalar int32.
    """
    # Most files without EXIF pay for comparisons, others for one search: a walk from
    # segment to segment takes fifty times as long in a graph.
    plain = is_plain_jpeg(image)
    head = tf.strings.substr(image, 0, tf.where(plain, 0, EXIF_WITHIN))
    parts = tf.strings.split(head, b"Exif\0\0", maxsplit=1)
    return tf.cond(tf.size(parts) > 1, lambda: _app1_orientation(parts), lambda: 1)


def webp_orientation(image):
    """The EXIF orientation of a WebP file; otherwise as `jpeg_orientation`."""
    # A bit of VP8X says that there is EXIF, mostly at the end of the file. In other
    # data its name may stand by chance, but not with the beginning of a TIFF behind it.
    noted = tf.strings.substr(image, tf.minimum(12, tf.strings.length(image)), 4)
    searched = tf.strings.substr(image, 0, tf.where(noted == b"VP8X", 2**31 - 1, 0))
    parts = tf.strings.split(searched, b"EXIF", maxsplit=1)
    found = tf.strings.join([tf.concat([parts, [b"", b""]], axis=0)[1], b"    "])
    # Four bytes of length; some writers keep the name that JPEG needs.
    found = tf.strings.substr(found, 4, EXIF_WITHIN)
    return _tiff_orientation(tf.strings.regex_replace(found, rb"^Exif\x00\x00", b""))


@apart
def _app1_orientation(parts):
    """Orientation in a JPEG's head, parted where EXIF's name stands."""
    # The marker of the segment and its length come before the name.
    before = tf.strings.substr(tf.strings.join([b"    ", parts[0]]), -4, 2)
    orientation = _tiff_orientation(parts[1])
    return tf.where(before == b"\xff\xe1", orientation, 1)


def _tiff_orientation(tiff):
    """Orientation noted in a TIFF structure, or 1."""
    length = tf.strings.length(tiff)

    def read(place, number):
        """`number` bytes as int32; zeros behind the end."""
        found = _bytes(tf.strings.substr(tiff, tf.minimum(place, length), number))
        found = tf.pad(found, [[0, number - tf.size(found)]])
        return tf.cast(found, tf.int32)

    head = read(0, 8)
    big = tf.reduce_all(head[:4] == [0x4D, 0x4D, 0, 42])
    little = tf.reduce_all(head[:4] == [0x49, 0x49, 42, 0])
    high, low = tf.where(big, 256, 1), tf.where(big, 1, 256)
    # A directory beyond 64 KiB does not fit into a segment.
    near = tf.reduce_all(tf.where(big, head[4:6], head[6:]) == 0)
    place = tf.where(big, head[6] * 256 + head[7], head[5] * 256 + head[4])
    count = read(place, 2)
    number = tf.minimum(count[0] * high + count[1] * low, MAXIMUM_ENTRIES)
    entries = tf.reshape(read(place + 2, 12 * number), (-1, 6, 2))
    # Tag, type, count (its halves) and the value, of 16 bits and two that are unused.
    words = tf.linalg.matvec(entries, tf.stack([high, low]))
    matches = (words[:, 0] == _ORIENTATION) & (words[:, 1] == _SHORT)
    matches &= (words[:, 4] >= 1) & (words[:, 4] <= 8)
    # The first one counts.
    found = tf.concat([tf.boolean_mask(words[:, 4], matches), [1]], axis=0)[0]
    return tf.where((big | little) & near, found, 1)


def _bytes(text):
    return tf.io.decode_raw(text, tf.uint8)

"""Packed networks byte by byte, as docs/packed_format.md has them: read and forged."""

import hashlib
import json
import pathlib
import struct
import zlib

# Magic, format, header bytes, raw header bytes, array bytes; then the checksum.
PREFIX = struct.Struct("<8sIIIQ")
START = PREFIX.size + 32


def read(path):
    """(header, bytes of the arrays), as docs/packed_format.md has them."""
    data = pathlib.Path(path).read_bytes()
    _, _, length, raw_length, size = PREFIX.unpack_from(data)
    raw = zlib.decompress(data[START : START + length])
    assert (len(raw), START + length + size) == (raw_length, len(data))
    return json.loads(raw), data[START + length :]


def forge(path, header, arrays, *, version=1):
    """Writes a file whose checksum is right, whatever else is wrong with it.

    The header is JSON, or bytes of it, or a pair: compressed bytes and their length.
    """
    if not isinstance(header, tuple):
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        header = (zlib.compress(raw), len(raw))
    compressed, raw_length = header
    lengths = (len(compressed), raw_length, len(arrays))
    prefix = PREFIX.pack(b"LQNET\r\n\x1a", version, *lengths)
    digest = hashlib.sha256(prefix + compressed + arrays).digest()
    path.write_bytes(prefix + digest + compressed + arrays)
    return path

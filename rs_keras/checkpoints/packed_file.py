"""The container of packed networks: docs/packed_format.md has its layout.

Here a file is checked as far as that goes without building the network: lengths before
anything is allocated, the checksum, the sizes of the arrays, and which classes its
Keras configuration names. Nothing in it is executed.
"""

import hashlib
import json
import math
import os
import pathlib
import struct
import zlib

import keras

from quant import packing
from rs_keras.layers import quantization

FORMAT = 1
MAGIC = b"LQNET\r\n\x1a"
# Magic, format, bytes of the header, the same decompressed, bytes of the arrays; then
# comes the checksum of everything but itself.
PREFIX = struct.Struct("<8sIIIQ")
DIGEST_BYTES = 32
# The header of a ResNet-101 has half a megabyte.
MAXIMUM_HEADER = 2**22
# Of the integers in a configuration (resolutions, strides), unless an array is larger.
_MAXIMUM_INTEGER = 2**14
# Views make a name each; factors of depthwise convolutions multiply with each other.
_MAXIMA = {"views": 64, "depth_multiplier": 1}
_NODE = {"module", "class_name", "config", "registered_name"}
_PACKAGES = ("rs_keras>", "quant>")
_KERAS_CLASSES = {
    "keras": {"DTypePolicy"},
    "keras.layers": {"Conv2D", "DepthwiseConv2D", "Dense"},
    "keras.initializers": {
        *("Zeros", "Ones", "GlorotUniform", "VarianceScaling"),
        *("RandomNormal", "RandomUniform", "TruncatedNormal"),
    },
}


class Refused(Exception):
    """What is wrong with a file: a sentence without its `. Received: ...`."""


def write(path, header, blobs):
    """Writes a file; returns the bytes of everything but the arrays.

    Args:
        path: the file.
        header: dict with "network" and "arrays", as `read` returns it.
        blobs: list of bytes, one for each of the arrays.

    Raises:
        Refused: a network that could not be read.
    """
    check_network(header["network"], header["arrays"])
    raw = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    _refuse_unless(
        len(raw) <= MAXIMUM_HEADER,
        f"The network's configuration must have at most {MAXIMUM_HEADER} bytes",
    )
    packed = zlib.compress(raw, 9)
    size = sum(map(len, blobs))
    prefix = PREFIX.pack(MAGIC, FORMAT, len(packed), len(raw), size)
    digest = hashlib.sha256(prefix + packed)
    for blob in blobs:
        digest.update(blob)
    with open(path, "wb") as file:
        file.writelines((prefix, digest.digest(), packed, *blobs))
        file.flush()
        os.fsync(file.fileno())
    return len(prefix) + DIGEST_BYTES + len(packed)


def read(file):
    """The header of an open file, which is left where the arrays start.

    Returns:
        {"network": Keras configuration, "arrays": rows (name, shape, encoding,
        channels), ...}; both are checked, against each other not yet.

    Raises:
        Refused: the file is damaged, of another format, or not one of ours.
    """
    total = os.fstat(file.fileno()).st_size
    start = file.read(PREFIX.size + DIGEST_BYTES)
    _refuse_unless(start.startswith(MAGIC), "The file must be a packed network (.lq)")
    whole = "The file must have the length that its header says"
    _refuse_unless(len(start) == PREFIX.size + DIGEST_BYTES, whole)
    _, version, length, raw_length, size = PREFIX.unpack_from(start)
    _refuse_unless(
        version == FORMAT,
        f"Packed networks of format {FORMAT} can be read, this one has {version}",
    )
    _refuse_unless(len(start) + length + size == total, whole)
    _refuse_unless(
        max(length, raw_length) <= MAXIMUM_HEADER,
        f"The header must have at most {MAXIMUM_HEADER} bytes",
    )
    digest = hashlib.sha256(start[: PREFIX.size])
    packed = file.read(length)
    digest.update(packed)
    while block := file.read(2**20):
        digest.update(block)
    same = digest.digest() == start[PREFIX.size :]
    _refuse_unless(same, "The file is damaged: its checksum differs")
    file.seek(len(start) + length)

    decompressor = zlib.decompressobj()
    raw = decompressor.decompress(packed, raw_length) if raw_length else b""
    whole = decompressor.eof and len(raw) == raw_length
    _refuse_unless(whole, "The header must have the length that the file says")
    header = json.loads(raw)
    _check_rows(header["arrays"], size)
    check_network(header["network"], header["arrays"])
    return header


def check_output(path):
    """Raises ValueError unless a file can be written there."""
    path = pathlib.Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            f"The output must be a file in a directory that exists. Received: {path}"
        )


def check_network(network, rows):
    """Refuses a configuration with classes that are not ours, or with huge numbers.

    The layers are built without values before their shapes are compared with those of
    the arrays, so that only what a layer does by itself with a number is limited here.
    """
    largest = max([_MAXIMUM_INTEGER, *(n for _, shape, *_ in rows for n in shape)])
    nodes = [("network", network)]
    while nodes:
        name, node = nodes.pop()
        if isinstance(node, list):
            nodes += [(name, value) for value in node]
        elif isinstance(node, dict):
            if "class_name" in node:
                known = set(node) == _NODE and _is_known(**node)
                sentence = f"A packed network must not hold {node['class_name']!r:.100}"
                _refuse_unless(known, f"{sentence} of {node.get('module')!r:.100}")
            nodes += node.items()
        elif isinstance(node, int) and name != "seed":
            bound = _MAXIMA.get(name, largest)
            _refuse_unless(abs(node) <= bound, f"A network must not have {name}={node}")


def without_state(network):
    """A serialized Keras object without what compiling and building left in it."""
    if isinstance(network, (list, tuple)):
        return [without_state(value) for value in network]
    if not isinstance(network, dict):
        return network
    state = ("build_config", "compile_config", "shared_object_id")
    return {k: without_state(v) for k, v in network.items() if k not in state}


def _check_rows(rows, size):
    """Refuses arrays of impossible shapes, and those that do not fill the file."""
    total = 0
    for _, shape, encoding, channels in rows:
        integers = all(type(n) is int and n >= 0 for n in (*shape, channels))
        _refuse_unless(integers and all(shape), "Shapes must be positive integers")
        count = math.prod(shape)
        grouped = encoding in packing.FLOATS or (channels and count % channels == 0)
        _refuse_unless(grouped, "Arrays of codes must have whole channels")
        total += packing.encoded_bytes(count, encoding, channels)
    _refuse_unless(total == size, "The arrays must fill the file exactly")


def _is_known(module, class_name, registered_name, config):
    """Is it a class of ours, or one of Keras' that ours are made of?

    Keras itself would import `module`.
    """
    if registered_name is None:
        return class_name in _KERAS_CLASSES.get(module, ())
    if module == "quant.tfmot":
        _register_ranges()
    found = keras.saving.get_registered_object(registered_name)
    return (
        registered_name.startswith(_PACKAGES)
        and isinstance(found, type)
        and (found.__module__, found.__name__) == (module, class_name)
    )


def _register_ranges():
    try:
        quantization.tfmot_bridge()
    except ValueError as error:
        raise Refused(str(error).partition(". Received: ")[0]) from error


def _refuse_unless(condition, sentence):
    if not condition:
        raise Refused(sentence)

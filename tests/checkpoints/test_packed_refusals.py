"""Packed networks that are damaged, too new, or made to do harm."""

import copy
import pathlib
import re
import tracemalloc
import zlib

import keras
import numpy as np
import pytest

from rs_keras.checkpoints import packed
from tests.checkpoints import packed_bytes


@pytest.fixture(scope="module")
def file(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "model.lq"
    packed.pack(tiny(bits=(2, 2)), path, rest="int8")
    return path


def nodes(network, name):
    """Every configuration of a class in a network."""
    if isinstance(network, list):
        return [found for value in network for found in nodes(value, name)]
    if not isinstance(network, dict):
        return []
    own = [network] if network.get("class_name") == name else []
    return own + [found for value in network.values() for found in nodes(value, name)]


def refuses(path, sentence):
    """Refused with one sentence, without memory for anything that the file claims."""
    before = peak_memory(reset=True)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=sentence) as caught:
            packed.load_packed(path)
        python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).endswith(f". Received: {path}")
    assert "\n" not in str(caught.value)
    # Tensors are none of Python's memory.
    assert python < 16e6 and peak_memory() - before < 64e6


def peak_memory(reset=False):
    """The most bytes that the process has held since a reset; Linux only."""
    status = pathlib.Path("/proc/self/status")
    if reset and status.exists():
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    text = status.read_text() if status.exists() else "VmHWM: 0"
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", text)[1])


def test_the_peak_of_memory_is_seen():
    # Otherwise the tests below would say nothing.
    before = peak_memory(reset=True)
    if not before:
        pytest.skip("only Linux tells")
    np.ones((50, 1000, 1000))
    assert peak_memory() - before > 300e6
    assert peak_memory(reset=True) - before < 64e6


def test_truncated_files_are_refused(file, tmp_path):
    data = file.read_bytes()
    lengths = {0, 1, 7, 8, 11, 27, 28, 59, 60, 61, len(data) - 1}
    for length in lengths | set(range(0, len(data), len(data) // 40)):
        (tmp_path / "m.lq").write_bytes(data[:length])
        refuses(tmp_path / "m.lq", "must")
    (tmp_path / "m.lq").write_bytes(data + b"\0")
    refuses(tmp_path / "m.lq", "must have the length that its header says")


def test_altered_files_are_refused(file, tmp_path):
    data = file.read_bytes()
    places = {*range(packed_bytes.START + 8), *range(0, len(data), len(data) // 150)}
    for place in places | {len(data) - 1}:
        altered = bytearray(data)
        altered[place] ^= 1 << place % 8
        (tmp_path / "m.lq").write_bytes(altered)
        with pytest.raises(ValueError, match=". Received: .*m.lq"):
            packed.load_packed(tmp_path / "m.lq")
    assert "its checksum differs" in _message(tmp_path / "m.lq")


def test_newer_files_and_no_files_are_refused(file, tmp_path):
    header, arrays = packed_bytes.read(file)
    newer = packed_bytes.forge(tmp_path / "m.lq", header, arrays, version=2)
    refuses(newer, "networks of format 1 can be read, this one has 2. Received: ")
    refuses(tmp_path / "none.lq", r"packed network \(.lq\) is needed")
    refuses(tmp_path, r"packed network \(.lq\) is needed")
    (tmp_path / "m.lq").write_bytes(b"PK" + bytes(500))
    refuses(tmp_path / "m.lq", r"must be a packed network \(.lq\)")


def test_a_forged_file_is_read_where_nothing_is_changed(file, tmp_path):
    same = packed_bytes.forge(tmp_path / "m.lq", *packed_bytes.read(file))
    assert packed.load_packed(same).name == "tiny"


def test_lengths_are_checked_before_anything_is_allocated(file, tmp_path):
    path = tmp_path / "m.lq"
    data = file.read_bytes()
    for offset, length in ((12, 4), (16, 4), (20, 8)):
        path.write_bytes(data[:offset] + b"\xff" * length + data[offset + length :])
        refuses(path, "must have (the length that its|at most)")
    _, arrays = packed_bytes.read(file)
    # 400 MB of JSON in half a megabyte, under a length that is allowed.
    compressor = zlib.compressobj()
    bomb = [compressor.compress(b"[")]
    bomb += [compressor.compress(b"0," * 500_000) for _ in range(400)]
    bomb += [compressor.compress(b"0]"), compressor.flush()]
    packed_bytes.forge(path, (b"".join(bomb), 2**22), arrays)
    refuses(path, "header must have the length that the file says")


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        (1, [2**40, 3, 3, 16], "must fill the file exactly"),
        (1, [2**62, 2**62], "must fill the file exactly"),
        (1, [0, 2**62], "Shapes must be positive integers"),
        (1, [-1, -432], "Shapes must be positive integers"),
        (1, [432.0], "Shapes must be positive integers"),
        (1, [3, 3, 16, 3], "must be those of the network"),
        (2, "lq2", "must fill the file exactly"),
        (2, "float64", "cannot be rebuilt .*`encoding` must be"),
        (3, 2**40, "must have whole channels"),
        (0, "stem/other", "must be those of the network"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(file, tmp_path, column, value, sentence):
    header, arrays = packed_bytes.read(file)
    row = next(row for row in header["arrays"] if row[0] == "stem/kernel")
    assert row[1:] == [[3, 3, 3, 16], "int8", 16]
    row[column] = value
    refuses(packed_bytes.forge(tmp_path / "m.lq", header, arrays), sentence)


def test_networks_larger_than_their_arrays_are_not_built(file, tmp_path):
    header, arrays = packed_bytes.read(file)

    def changed(name, key, value, sentence):
        forged = copy.deepcopy(header)
        for node in nodes(forged["network"], name):
            node["config"][key] = value
        refuses(packed_bytes.forge(tmp_path / "m.lq", forged, arrays), sentence)

    # A gigabyte of kernels, of which no number is out of the ordinary.
    changed("QuantConv2D", "filters", 2**12, "must be those of the network")
    changed("Dense", "units", 2**12, "must be those of the network")
    changed("LQActivationQuantizer", "rows", 2**12, "must be those of the network")
    for name, key in (
        ("QuantConv2D", "filters"),
        ("Conv2D", "filters"),
        ("Dense", "units"),
        ("LQActivationQuantizer", "rows"),
        ("SwitchableBatchNormalization", "views"),
        ("QuantConv2D", "depth_multiplier"),
    ):
        for value in (10**6, 10**12, 10**30):
            changed(name, key, value, f"must not have {key}={value}")
    changed("QuantConv2D", "filters", 1e12, "cannot be rebuilt")


HARMFUL = [
    {"module": "builtins", "class_name": "eval", "registered_name": None},
    {"module": "os", "class_name": "system", "registered_name": "rs_keras>system"},
    {"module": "keras.layers", "class_name": "Lambda", "registered_name": None},
    {"module": "keras.layers", "class_name": "TFSMLayer", "registered_name": None},
    {"module": "builtins", "class_name": "__lambda__", "registered_name": None},
    {"module": "builtins", "class_name": "function", "registered_name": "function"},
    {"module": "keras.layers", "class_name": "Conv2D", "registered_name": "rs_keras>X"},
    {
        "module": "keras.layers",
        "class_name": "Conv2D",
        "registered_name": "tests>Harmful",
    },
    {
        "module": "tests",
        "class_name": "ConvBN",
        "registered_name": "rs_keras>ConvBN",
    },
    {
        "module": "keras.layers",
        "class_name": "Conv2D",
        "registered_name": None,
        "build_config": {"input_shape": [1, 1, 1, 2**40]},
    },
    {"class_name": "Conv2D"},
    {"class_name": ["Conv2D"], "module": "keras.layers", "registered_name": None},
    {"class_name": "Conv2D", "module": ["keras.layers"], "registered_name": None},
]


class Harmful(keras.layers.Layer):
    """Registered with Keras, but not of the packages whose layers may be named."""

    built_once = False

    def __init__(self, *args, **kwargs):
        Harmful.built_once = True
        super().__init__()


@pytest.mark.parametrize("node", HARMFUL)
@pytest.mark.parametrize("place", ["layer", "initializer", "top"])
def test_classes_that_are_not_ours_are_refused(file, tmp_path, node, place):
    header, arrays = packed_bytes.read(file)
    node = {"config": {"name": "x", "value": "1"}, **node}
    if place == "top":
        header["network"] = node
    elif place == "layer":
        header["network"]["config"]["blocks"].append(node)
    else:
        stem = nodes(header["network"], "Conv2D")[0]["config"]
        stem["kernel_initializer"]["config"]["more"] = [{"deep": node}]
    with keras.saving.custom_object_scope({"tests>Harmful": Harmful}):
        path = packed_bytes.forge(tmp_path / "m.lq", header, arrays)
        refuses(path, "must not hold|cannot be rebuilt")
    assert not Harmful.built_once


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"1",
        b"nonsense",
        b"[" * 100_000,
        b'{"network": {}, "arrays": []}',
        b'{"network": null, "arrays": {"a": 1}, "rest": [], "training_state": {}}',
        b'{"network": [], "arrays": [], "rest": "float32", "training_state": false}',
        b'{"network": {"class_name": 1}, "arrays": []}',
    ],
)
def test_headers_of_another_kind_are_refused(tmp_path, header):
    path = packed_bytes.forge(tmp_path / "m.lq", header, b"")
    refuses(path, "cannot be rebuilt|header must|arrays must|must not hold")


def test_other_options_than_the_files_own_are_refused(file, tmp_path):
    header, arrays = packed_bytes.read(file)
    for change in ({"rest": "float16"}, {"rest": "int4"}, {"training_state": True}):
        forged = packed_bytes.forge(tmp_path / "m.lq", header | change, arrays)
        refuses(forged, "must be those of the network")
    forged = copy.deepcopy(header)
    nodes(forged["network"], "LQWeightQuantizer")[0]["config"]["bits"] = 3
    refuses(packed_bytes.forge(tmp_path / "m.lq", forged, arrays), "must be those of")


def _message(path):
    with pytest.raises(ValueError) as caught:
        packed.load_packed(path)
    return str(caught.value)

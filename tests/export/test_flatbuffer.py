"""A file that was read, edited and written computes the same, without repetitions."""

import copy

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from rs_keras.export import flatbuffer
from tests.export import files

SIDES = {"small": 8, "large": 12}


def _network(image):
    """A convolution and a product of matrices without a bias."""
    draw = np.random.default_rng(0).normal
    kernel = tf.constant(draw(size=(3, 3, 3, 5)), "float32")
    matrix = tf.constant(draw(size=(5, 4)), "float32")
    x = tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME"))
    return {"logits": tf.linalg.matmul(tf.reduce_mean(x, (1, 2)), matrix)}


@pytest.fixture(scope="module")
def stock():
    """A converter's file of two signatures."""
    return files.convert({k: (_network, (1, s, s, 3)) for k, s in SIDES.items()})


def _images(key):
    side = SIDES[key]
    return np.random.default_rng(1).normal(size=(2, side, side, 3)).astype("float32")


def _starts(data):
    """{index: (where its data begins in the file, their length)} of the buffers."""
    file = schema.Model.GetRootAs(data)
    found = {}
    for index in range(file.BuffersLength()):
        table = file.Buffers(index)._tab
        if table.Offset(4):  # `data`, the first field of a Buffer
            offset = table.Offset(4)
            found[index] = (table.Vector(offset), table.VectorLen(offset))
    return found


def _append(model, graph, name, values):
    """Adds `values` to the logits of a graph, by an operator behind the last one."""
    last = graph.operators[-1]
    output = last.outputs[0]
    inner = flatbuffer.add_tensor(
        graph, name, None, "float32", like=graph.tensors[output]
    )
    last.outputs = np.array([inner], np.int32)
    constant = flatbuffer.add_constant(model, graph, name, values)
    add = flatbuffer.make_operator(
        model, "ADD", [inner, constant], [output], schema.AddOptionsT()
    )
    graph.operators.append(add)


@pytest.mark.parametrize("key", SIDES)
def test_a_file_computes_the_same_after_a_round_trip(stock, key):
    once = flatbuffer.write(flatbuffer.read(stock))
    assert once[4:8] == b"TFL3"
    assert len(once) <= len(stock)
    assert flatbuffer.write(flatbuffer.read(once)) == once
    expected = files.run(stock, key, _images(key))["logits"]
    np.testing.assert_array_equal(
        files.run(once, key, _images(key))["logits"], expected
    )
    # And it is what TensorFlow computes, but for the order of sums.
    network = _network(tf.constant(_images(key)))["logits"]
    np.testing.assert_allclose(expected, network, rtol=0, atol=1e-5)


def test_equal_vectors_strings_and_buffers_are_stored_once(stock):
    model = flatbuffer.read(stock)
    values = np.random.default_rng(2).normal(size=(1, 4)).astype("float32")
    scale = np.random.default_rng(3).uniform(1, 2, 50).astype("float32")
    name = "a name that is found in no other file"
    for graph in model.subgraphs:
        for _ in range(3):
            _append(model, graph, name.encode(), values.copy())
            parameters = flatbuffer.quantized(scale.copy())
            graph.tensors[graph.operators[-1].inputs[1]].quantization = parameters
    data = flatbuffer.write(model)
    assert data.count(values.tobytes()) == 1
    assert data.count(scale.tobytes()) == 1
    assert data.count(name.encode()) == 1
    again = flatbuffer.read(data)
    holders = [t for g in again.subgraphs for t in g.tensors if t.name == name.encode()]
    constants = [t for t in holders if t.buffer]
    assert len(constants) == 6 and len({t.buffer for t in constants}) == 1
    for tensor in constants:
        np.testing.assert_array_equal(tensor.quantization.scale, scale)


def test_buffers_are_aligned_to_16_bytes_in_the_file(stock):
    model = flatbuffer.read(stock)
    graph = model.subgraphs[0]
    draw = np.random.default_rng(0).integers
    # Kept, as what an operator needs and does not read.
    graph.operators[0].intermediates = np.array(
        [
            flatbuffer.add_constant(model, graph, b"", draw(0, 256, n, np.uint8))
            for n in range(1, 40)
        ]
    )
    data = flatbuffer.write(model)
    starts = _starts(data)
    assert {length for _, length in starts.values()} >= set(range(1, 40))
    assert {start % 16 for start, _ in starts.values()} == {0}


@pytest.mark.parametrize("key", SIDES)
def test_what_nothing_uses_is_left_out_and_the_rest_renumbered(stock, key):
    model = flatbuffer.read(stock)
    for index, graph in enumerate(model.subgraphs):
        useless = np.full(1000, 7 + index, np.float32)
        flatbuffer.add_buffer(model, useless)
        flatbuffer.add_constant(model, graph, b"useless", useless)
        # Behind the useless ones, so that its numbers must change.
        _append(model, graph, b"useful", np.array([[1, 2, 3, 4]], "float32"))
    before = copy.deepcopy(model)
    data = flatbuffer.write(model)
    assert b"useless" not in data and b"useful" in data
    again = flatbuffer.read(data)
    assert len(again.buffers) < len(before.buffers) - 3
    assert again.buffers[0].data is None
    for old, new in zip(before.subgraphs, again.subgraphs, strict=True):
        assert len(new.tensors) < len(old.tensors)
        # An input that is absent stays so.
        absent = [-1 in operator.inputs for operator in new.operators]
        assert any(absent)
        assert absent == [-1 in operator.inputs for operator in old.operators]
    expected = files.run(stock, key, _images(key))["logits"] + [1, 2, 3, 4]
    found = files.run(data, key, _images(key))["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_subset_keeps_its_signatures_and_nothing_of_the_others(stock):
    model = flatbuffer.subset(flatbuffer.read(stock), ["large"])
    graph = model.subgraphs[0]
    _append(model, graph, b"one", np.ones((1, 4), "float32"))
    data = flatbuffer.write(model)
    again = flatbuffer.read(data)
    assert [s.signatureKey for s in again.signatureDefs] == [b"large"]
    assert len(again.subgraphs) == 1
    found = files.run(data, "large", _images("large"))["logits"]
    expected = files.run(stock, "large", _images("large"))["logits"] + 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for keys in (["small", "large"], ["large", "small"]):
        data = flatbuffer.write(flatbuffer.subset(flatbuffer.read(stock), keys))
        again = flatbuffer.read(data)
        assert [s.signatureKey.decode() for s in again.signatureDefs] == keys
        assert [s.subgraphIndex for s in again.signatureDefs] == [0, 1]
        for key in keys:
            expected = files.run(stock, key, _images(key))["logits"]
            found = files.run(data, key, _images(key))["logits"]
            np.testing.assert_array_equal(found, expected)


def test_constants_have_their_shape_and_what_is_computed_or_absent_is_none(stock):
    model = flatbuffer.read(stock)
    graph = flatbuffer.subset(model, ["small"]).subgraphs[0]
    by_name = {flatbuffer.operator_name(model, op): op for op in graph.operators}
    product = by_name["FULLY_CONNECTED"]
    matrix = flatbuffer.constant(model, graph, product.inputs[1])
    draw = np.random.default_rng(0).normal
    draw(size=(3, 3, 3, 5))
    expected = draw(size=(5, 4)).astype("float32").T
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == "float32"
    assert product.inputs[2] == -1
    assert flatbuffer.constant(model, graph, product.inputs[2]) is None
    assert flatbuffer.constant(model, graph, product.outputs[0]) is None
    assert flatbuffer.constant(model, graph, graph.inputs[0]) is None
    index = flatbuffer.add_constant(model, graph, b"scalar", np.float32(3).reshape(()))
    assert flatbuffer.constant(model, graph, index).shape == ()
    for name in ("float32", "float16", "int8", "uint8", "int32", "int64", "bool"):
        values = np.arange(6).reshape(2, 3).astype(name)
        index = flatbuffer.add_constant(model, graph, b"any", values)
        found = flatbuffer.constant(model, graph, index)
        assert flatbuffer.dtype(graph.tensors[index]) == name == found.dtype
        np.testing.assert_array_equal(found, values)


def test_tensors_are_named_after_signatures_and_layers(stock):
    model = flatbuffer.read(stock)
    graph = model.subgraphs[0]
    flatbuffer.add_tensor(graph, b"net/stem_norm_1/add;net/stem/conv", (1,), "float32")
    flatbuffer.shorten_names(model)
    assert graph.tensors[-1].name == b"stem_norm"
    for signature in model.signatureDefs:
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        for entry in (*signature.inputs, *signature.outputs):
            assert tensors[entry.tensorIndex].name == entry.name

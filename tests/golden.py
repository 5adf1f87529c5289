"""Deterministic weights and inputs of the golden files, and where these files lie.

Written from sections 1 and 2 of golden/README.md: nothing here reads our own output.
"""

import json
import pathlib
import zlib

import numpy as np
import pytest

# The files are shared by several checkouts and lie beside this one.
DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "shared" / "golden"


def require(name):
    """The path of a golden file; skips the test where the files are not there."""
    path = DIRECTORY / name
    if not path.exists():
        pytest.skip(f"needs the golden file {path}")
    return path


def arrays(name):
    return np.load(require(name))


def keys(network):
    """{reference key: [shape, kind, ...]} of one of the official networks."""
    return json.loads(require("keys_rsnet.json").read_text())[f"parallel_{network}"]


def tensor(key, shape, kind):
    """Section 1: the weight called `key`, float32."""
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    normal, uniform = generator.standard_normal, generator.uniform
    draw = {
        "conv": lambda: normal(shape) * np.sqrt(2 / np.prod(shape[1:])),
        "fcw": lambda: normal(shape) * np.sqrt(1 / shape[1]),
        "fcb": lambda: normal(shape) * 0.1,
        "bnw": lambda: uniform(0.5, 1.0, shape),
        "bnb": lambda: normal(shape) * 0.1,
        "rm": lambda: normal(shape) * 0.1,
        "rv": lambda: uniform(0.5, 1.5, shape),
    }
    return draw[kind]().astype(np.float32)


def weights(network, shapes):
    """A state dict without alpha: {key: array} for {key: shape}."""
    kinds = keys(network)
    return {
        key: tensor(key, tuple(shape), kinds[key][1])
        for key, shape in shapes.items()
        if key != "alpha"
    }


def image(side, n=2, seed=None):
    """Section 2, as the model takes it: NHWC, in units of 1 / 255."""
    generator = np.random.default_rng(side if seed is None else seed)
    cells = -(-side // 16)
    low = generator.standard_normal((n, 3, cells, cells))
    big = np.repeat(np.repeat(low, 16, axis=2), 16, axis=3)[:, :, :side, :side]
    x = (big + 0.25 * generator.standard_normal((n, 3, side, side))).astype(np.float32)
    return 255 * x.transpose(0, 2, 3, 1)


def lq_variables(network):
    """The weights of a network of keys_lqnet.json: {TensorFlow variable: array}."""
    shapes = json.loads(require("keys_lqnet.json").read_text())[network]
    return {key: _lq_variable(key, shapes) for key in shapes}


def _lq_variable(key, shapes):
    shape = tuple(shapes[key])
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    normal, uniform = generator.standard_normal, generator.uniform
    if key.endswith("/basis"):
        values = _initial_basis(key, shapes)[:, None] * uniform(0.8, 1.2, shape)
    elif key.endswith("/W"):
        gain = 1 if key == "linear/W" else 2
        values = normal(shape) * np.sqrt(gain / np.prod(shape[:-1]))
    elif key.endswith("/gamma"):
        values = uniform(0.5, 1.0, shape)
    elif key.endswith("/variance/EMA"):
        values = uniform(0.5, 1.5, shape)
    else:
        values = normal(shape) * 0.1
    return values.astype(np.float32)


def _initial_basis(key, shapes):
    bits = shapes[key][0]
    powers = 2.0 ** np.arange(bits)
    if "ActivationQuantization" in key:
        return np.float32(0.6745 * 2 / (2**bits - 1) * powers)
    kh, kw, _, filters = shapes[key.replace("weight_quant/basis", "W")]
    deviation = np.sqrt(2 / (kh * kw * filters))
    return np.float32(0.6745 * deviation / 2 ** (bits - 1) * powers)

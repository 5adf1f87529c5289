"""What every test may use: a quiet TensorFlow, clean global state, a tiny network."""

import os

# Before any test module is imported: TensorFlow reads the first when it starts, and
# `commands` takes both over. What tests find out about files is no business of the
# user's own cache; kept between runs, because other packages keep there what they need
# a while to make.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["XDG_CACHE_HOME"] = os.path.abspath(f"{__file__}/../../.pytest_cache/xdg")

import gc
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import commands

ROOT = pathlib.Path(__file__).resolve().parents[1]
shutil.rmtree(f"{os.environ['XDG_CACHE_HOME']}/rs_keras", ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def short_collections():
    """What is alive when a file of tests begins is not looked through again.

    TensorFlow keeps graphs for good, and its converter collects garbage each time: a
    fifth of the tests' time. What dies later is freed still, but for cycles.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def policy():
    """A function that sets Keras' global dtype policy until the test ends."""
    import keras

    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="session")
def tiny():
    """A function that makes a real `Classifier` of four convolutions.

    It has each kind of block, and is traced in a tenth of the time of a ResNet-18. With
    `bits` (weights, activations) all convolutions but the stem are quantized, with
    `rest_bits=8` everything.
    """
    import keras

    from rs_keras.layers import conv_bn
    from rs_keras.layers import pooling
    from rs_keras.layers import quantization
    from rs_keras.models import classifier
    from rs_keras.models import ends
    from rs_keras.models import resnet

    def make(
        resolutions=(64, 48, 32),
        num_classes=6,
        *,
        views=1,
        shared_bn=False,
        norm_options=None,
        bits=(32, 32),
        rest_bits=32,
        quantizer_options=None,
        seed=0,
        **kwargs,
    ):
        keras.utils.set_random_seed(seed)
        low_bit = quantization.quantization(
            resolutions, views, *bits, **(quantizer_options or {}), rest_bits=rest_bits
        )
        rest = low_bit and low_bit.rest
        norm = resnet.norm_factory(tuple(resolutions), views, shared_bn, norm_options)

        def layer(filters, kernel_size, strides, name, activation="relu"):
            return conv_bn.conv_bn(
                filters,
                kernel_size,
                strides,
                norm=norm,
                name=name,
                norm_name=f"{name}_norm",
                activation=activation,
                low_bit=rest if name == "stem" else low_bit,
                output_name=f"{name}.quant" if activation and name != "stem" else None,
            )

        block = conv_bn.residual_block(
            [layer(16, 3, 2, "branch1"), layer(16, 3, 1, "branch2", None)],
            layer(16, 1, 2, "shortcut", None),
            "relu",
            low_bit=low_bit,
            name="block",
        )
        blocks = [layer(16, 3, 2, "stem"), pooling.MaxPool(name="maxpool"), block]
        initializers = {
            "kernel_initializer": "glorot_uniform",
            "bias_initializer": "zeros",
        }
        return classifier.Classifier(
            blocks,
            ends.dense_head(num_classes, **initializers, rest=rest, name="head"),
            resolutions,
            views=views,
            rest_bits=rest_bits,
            name="tiny",
            **kwargs,
        )

    return make


@pytest.fixture(scope="session")
def batch():
    """A function (n, side or (h, w), seed) -> (uint8 images, int64 labels of 6)."""

    def make(n=6, side=64, seed=0):
        height, width = (side, side) if isinstance(side, int) else side
        generator = np.random.default_rng(seed)
        low = generator.integers(0, 256, (n, -(-height // 8), -(-width // 8), 3))
        images = np.repeat(np.repeat(low, 8, axis=1), 8, axis=2)[:, :height, :width]
        noise = generator.integers(-20, 21, images.shape)
        images = np.clip(images + noise, 0, 255).astype(np.uint8)
        return images, generator.integers(0, 6, n)

    return make


@pytest.fixture(scope="session")
def fresh_python():
    """A function that runs a program in a new interpreter and returns its output."""

    def run(program, **environment):
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of three classes, 16 + 8 JPEG files each, coloured by class."""
    root = tmp_path_factory.mktemp("photos")
    import tensorflow as tf

    generator = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = generator.integers(0, 100, (60, 72, 3))
                image[..., 2 - label] += 150
                data = tf.io.encode_jpeg(image.astype("uint8")).numpy()
                (folder / f"{i}.jpg").write_bytes(data)
    return root


@pytest.fixture(scope="session")
def finished(photos, tmp_path_factory):
    """A workdir trained for five epochs in one go."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    output = commands.succeeds(
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{photos}",
        f"--workdir={workdir}",
        "--epochs=5",
    )
    assert "ETA" in output and "data wait" in output and "ensemble" in output
    return workdir

"""Keras models that cannot be made switchable, each named with its layer."""

import keras
import numpy as np
import pytest
from keras import layers

import rs_keras
from tests.models import networks


def small(*tail, before=()):
    image = keras.Input((64, 64, 3))
    x = image
    for layer in (*before, *tail):
        x = layer(x)
    return keras.Model(image, x, name="small")


def tail(*extra):
    pool = layers.GlobalAveragePooling2D()
    return (layers.BatchNormalization(), *extra, pool, layers.Dense(3))


def _flat():
    flat = layers.Flatten(name="flat")
    return small(layers.BatchNormalization(), flat, layers.Dense(3))


def _gray():
    image = keras.Input((64, 64, 1))
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(image))
    return keras.Model(image, layers.Dense(3)(x))


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_flat, "Received: flat (Flatten)"),
        (lambda: small(*tail(layers.Lambda(abs, name="odd"))), "odd (Lambda)"),
        (lambda: small(*tail()[1:]), "without batch normalization"),
        (lambda: small(*tail(layers.LayerNormalization(name="ln"))), "ln (LayerNorm"),
        (lambda: small(*tail(layers.Resizing(32, 32, name="to"))), "to (Resizing)"),
        (
            lambda: small(
                layers.Conv2D(4, 3, kernel_regularizer="l2", name="decays"), *tail()
            ),
            "decays (Conv2D) with kernel_regularizer",
        ),
        (lambda: small(layers.BatchNormalization(axis=1), *tail()), "channels_last"),
        (lambda: small(layers.BatchNormalization()), "return the logits"),
        (lambda: small(*tail(), layers.ReLU(name="end")), "which ends with end (ReLU)"),
        (_gray, "one RGB image"),
        (Subclassed, "functional or Sequential"),
        (lambda: "resnet", "functional or Sequential"),
        (
            lambda: small(*[layers.MaxPooling2D(2) for _ in range(5)], *tail()),
            "Received: 16, less than its strides, which come to 32",
        ),
        (lambda: small(layers.Conv2D(4, 20), *tail()), "Received: 16,"),
    ],
)
def test_what_cannot_be_switched_is_named(make, words):
    with pytest.raises(ValueError, match="Received: ") as error:
        rs_keras.make_switchable(make(), (64, 16))
    assert words in str(error.value)


def test_preprocessing_that_is_no_operation_is_refused():
    original = networks.network()
    for wrong in (np.asarray, "imagenet"):
        with pytest.raises(ValueError, match="must be a layer, or a function"):
            rs_keras.make_switchable(original, (64, 32), preprocessing=wrong)

"""Keras networks for tests."""

import keras
import numpy as np
from keras import layers


def network(side=64, classes=6, final="softmax"):
    """What the usual ones consist of: a nested model, operators, a gate."""
    inner = keras.Input((None, None, 16))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(
        inner
    )
    x = layers.BatchNormalization(name="depthwise_bn", scale=False)(x)
    inside = keras.Model(inner, layers.ReLU(6.0, name="depthwise_relu")(x), name="in")

    image = keras.Input((side, side, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(momentum=0.8, epsilon=1e-3, name="stem_bn")(x)
    x = layers.Activation("relu", name="stem_relu")(x)
    y = inside(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(16, 1, name="gate")(gate)
    gate = keras.ops.relu6(gate + 3.0) * (1 / 6)
    y = layers.Conv2D(16, 1, name="project")(layers.Multiply()([y, gate]))
    x = layers.Add()([x, layers.BatchNormalization(name="project_bn")(y)])
    x = layers.Concatenate()([x, layers.AveragePooling2D(1)(y)])
    x = layers.Conv2D(24, 3, strides=2, padding="same", name="last")(x)
    x = layers.ReLU(name="last_relu")(layers.BatchNormalization(name="last_bn")(x))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(classes, activation=final, name="logits")(x)
    return keras.Model(image, x, name="net")


def stirred(model, seed=0):
    """The model with statistics and parameters that no two normalizations share."""
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, layers.BatchNormalization):
            for weight in layer.weights:
                positive = weight.name in ("gamma", "moving_variance")
                low, high = (0.5, 1.5) if positive else (-0.3, 0.3)
                weight.assign(generator.uniform(low, high, weight.shape))
    return model

"""What the tests of SwitchableBatchNormalization share."""

import numpy as np
import tensorflow as tf

from rs_keras.layers import switchable_norm

RESOLUTIONS = (64, 48, 32)
# Sums of a few hundred float32 values of size 1, taken in another order.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def layer_with_rows(resolutions=RESOLUTIONS, channels=3, **kwargs):
    """A built layer whose rows are all different."""
    layer = switchable_norm.SwitchableBatchNormalization(resolutions, **kwargs)
    layer.build((None, None, None, channels))
    generator = np.random.default_rng(5)
    shape = (len(layer.keys), channels)
    layer.gamma.assign(generator.uniform(0.5, 2, shape))
    layer.beta.assign(generator.standard_normal(shape))
    layer.moving_mean.assign(generator.standard_normal(shape))
    layer.moving_variance.assign(generator.uniform(0.5, 2, shape))
    return layer


def images(shape=(4, 5, 6, 3), seed=0):
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) * 2 + 0.5).astype(np.float32)


def values(layer):
    return {v.name: v.numpy() for v in layer.variables}


def normalized(x, gamma, beta, mean, variance, epsilon=1e-5):
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def step(layer, x, upstream, **kwargs):
    """Output and gradients (x, gamma, beta) of sum(output * upstream) in training."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, **kwargs)
        loss = tf.reduce_sum(tf.cast(y, "float32") * upstream)
    sources = [x, layer.gamma.value, layer.beta.value]
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, sources)]
    return [np.asarray(tf.cast(t, "float32")) for t in (y, *gradients)]

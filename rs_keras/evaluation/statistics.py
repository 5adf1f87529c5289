"""Mean and variance of what each batch normalization of a network is given."""

import keras
from keras import ops

from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm
from rs_keras.models import copies


class Pooled:
    """Mean and (biased) variance over all batches, in float64.

    Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing
    sample variances, 1979.
    """

    def __init__(self):
        self.count, self.mean, self._squares = 0.0, 0.0, 0.0

    def add(self, mean, variance, count):
        total = self.count + count
        step = mean.astype("float64") - self.mean
        self.mean = self.mean + step * (count / total)
        self._squares += variance.astype("float64") * count
        self._squares += step**2 * (self.count * count / total)
        self.count = total

    @property
    def variance(self):
        return self._squares / self.count


class _Observing(switchable_norm.SwitchableBatchNormalization):
    """Inference that keeps the statistics of what it is given."""

    found = ()  # of each call in a forward pass
    by_batch = False

    def call(self, x, resolution=None, training=None):
        wide = ops.cast(x, self.variable_dtype)
        axes = tuple(range(len(x.shape) - 1))
        mean, variance = ops.moments(wide, axes=axes)
        count = ops.size(wide) / x.shape[-1]
        self.found += ((mean, variance, ops.cast(count, self.variable_dtype)),)
        if not self.by_batch:
            return super().call(x, resolution=resolution)
        gamma, beta, *_ = self.parameters_at(resolution)
        y = ops.batch_normalization(
            wide, mean, variance, -1, offset=beta, scale=gamma, epsilon=self.epsilon
        )
        return ops.cast(y, self.compute_dtype)


class Statistics(keras.Model):
    """Images -> [(mean, variance, count) of each call] of each normalization."""

    def __init__(self, network, resolution, by_batch):
        super().__init__(name=f"statistics_{resolution}")
        self._network = network
        self._resolution = resolution
        self._by_batch = by_batch
        self.built = True

    def call(self, x):
        layers = norms(self._network)
        for layer in layers:
            layer.by_batch, layer.found = self._by_batch, ()
        self._network(x, resolution=self._resolution, training=False)
        return [layer.found for layer in layers]


def observing(model):
    """A copy whose normalizations are `_Observing`."""

    def change(node):
        if node.get("class_name") == "SwitchableBatchNormalization":
            return {"class_name": "_Observing", "config": node["config"]}
        return node

    with keras.saving.custom_object_scope({"_Observing": _Observing}):
        return copies.changed(model, change)


def norms(model):
    """The switchable normalizations of a classifier, in order."""
    return [
        layer
        for layer in conv_bn.leaves(model.blocks)
        if isinstance(layer, switchable_norm.SwitchableBatchNormalization)
    ]

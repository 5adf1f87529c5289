"""A network as exports see it: what resolutions share, and one table of the rest."""

import keras
import numpy as np
import tensorflow as tf

from quant import quantizers
from rs_keras.layers import conv_bn
from rs_keras.models import classifier
from rs_keras.models import copies


class InferenceNetwork:
    """Inference of a `Classifier`, its private parameters given as an argument.

    A branch of the network reads its kernels, already quantized where they are, and
    one row of `table`, which holds what may be private to a resolution: parameters and
    statistics of batch normalization, and bases of activations.

    Args:
        model: `Classifier` of one or several resolutions.

    Attributes:
        resolutions: those of the model, descending.
        class_names: those of the model, or None.
        variables: tf.Variables that `logits` reads.
        table: float32 (S, P), a row for each resolution; where one is shared by all, it
            is repeated. The gammas of all layers stand first, then their betas, means
            and variances (with the epsilon), then bases. Gammas are divided by a power
            of two, and variances by its square, so that no variance exceeds 1: half
            precision has room for it, and nothing is rounded.

    Raises:
        ValueError: another backend than TensorFlow; a model of several views, with
            weights that are not finite, or with names of classes that are not one line
            each.
    """

    def __init__(self, model):
        _check_model(model)
        self.resolutions = model.resolutions
        self.class_names = model.class_names
        self._branch = _single_branch(model)
        self._replaced, norms, bases = [], [], []
        for source, layer in zip(
            copies.layers(model), copies.layers(self._branch), strict=True
        ):
            if isinstance(layer, _Affine):
                self._replaced.append(layer)
                norms.append(source)
            elif isinstance(layer, quantizers.LQActivationQuantizer):
                self._replaced.append(layer)
                bases.append(source)
            else:
                _copy(source, layer)
        self._channels = [norm.gamma.shape[-1] for norm in norms]
        blocks = zip(*(_norm_block(norm) for norm in norms), strict=True)
        private = [weight for block in blocks for weight in block]
        private += [source.basis for source in bases]
        self.table = np.concatenate([self._rows(w) for w in private], axis=1)

    @property
    def variables(self):
        return [variable.value for variable in self._branch.variables]

    def logits(self, images, private):
        """Logits (N, num_classes), float32, as a graph that does not know S.

        Args:
            images: (N, H, W, 3), RGB 0..255.
            private: (P,), a row of `table` or what lies between two rows.
        """
        # Of all layers at once, for a graph with few operations.
        n = sum(self._channels)
        gamma, beta, mean, variance = (private[i * n : (i + 1) * n] for i in range(4))
        scale = tf.math.rsqrt(variance) * gamma
        scales = iter(tf.split(scale, self._channels))
        offsets = iter(tf.split(beta - mean * scale, self._channels))
        replaced, end = [], 4 * n
        for layer in self._replaced:
            if isinstance(layer, _Affine):
                replaced.append((layer.scale, next(scales)))
                replaced.append((layer.offset, next(offsets)))
                continue
            start, end = end, end + layer.basis.shape.num_elements()
            basis = tf.reshape(private[start:end], layer.basis.shape)
            replaced.append((layer.basis, basis))
        with keras.StatelessScope(state_mapping=replaced):
            return self._branch(images, training=False)

    def private_at(self, table, resolution):
        """The row (P,) of a resolution, a scalar tensor; interpolated between rows."""
        if len(self.resolutions) == 1:
            return table[0]
        grid = np.array(self.resolutions, "float32")
        # How far the resolution is above each gap between two rows; each row's share is
        # what it has more of than the row before.
        above = tf.clip_by_value((resolution - grid[1:]) / (grid[:-1] - grid[1:]), 0, 1)
        upper = tf.concat([above, [1.0]], axis=0)
        shares = upper - tf.concat([[0.0], above], axis=0)
        return tf.reduce_sum(table * shares[:, None], axis=0)

    def _rows(self, weight):
        """A stacked weight as float32 (S, p)."""
        rows = np.reshape(np.array(weight, "float32"), (weight.shape[0], -1))
        return np.broadcast_to(rows, (len(self.resolutions), rows.shape[1]))


def in_float32(model):
    """The network itself, or a copy that computes in float32 if it does not."""
    if model.compute_dtype == "float32":
        return model

    def change(node):
        # A policy is a dict; the dtype of a cast, which stays, is a name.
        policy = isinstance(node.get("dtype"), dict)
        return {**node, "dtype": "float32"} if policy else node

    return copies.changed(model, change)


def activation_quantizers(model):
    """The LQ-Nets quantizers of a model's activations."""
    leaves = conv_bn.leaves(model.blocks)
    return [q for q in leaves if isinstance(q, quantizers.LQActivationQuantizer)]


def resolution_of(images):
    """round(sqrt(H * W)) of images (N, H, W, 3), a float32 scalar tensor."""
    shape = tf.cast(tf.shape(images), "float32")
    return tf.round(tf.sqrt(shape[1] * shape[2]))


class _Affine(keras.layers.Layer):
    """`x * scale + offset`: what batch normalization is at inference."""

    def build(self, input_shape):
        shape = input_shape[-1:]
        self.scale = self.add_weight(name="scale", shape=shape, autocast=False)
        self.offset = self.add_weight(name="offset", shape=shape, autocast=False)

    def call(self, x, resolution=None, training=None):
        y = keras.ops.cast(x, self.variable_dtype) * self.scale + self.offset
        return keras.ops.cast(y, self.compute_dtype)


def _check_model(model):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Exports need the TensorFlow backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    if model.views != 1:
        raise ValueError(
            "Networks of several views at one resolution cannot be exported. "
            f"Received: {model.name} with {model.views} views"
        )
    for name in model.class_names or ():
        if name.splitlines() != [name]:
            raise ValueError(
                f"Exports need names of classes of one line each. Received: {name!r}"
            )
    for layer in copies.layers(model):
        weights = layer.weights
        if isinstance(layer, quantizers.LQActivationQuantizer):
            weights = [layer.basis]
        for weight in weights:
            if not np.all(np.isfinite(weight)):
                raise ValueError(
                    "Only a network whose weights are all finite can be exported. "
                    f"Received: {model.name} with {weight.path}"
                )


def _single_branch(model):
    """The same layers, of one resolution, without quantizers of kernels."""
    single = {
        "resolutions": model.resolutions[:1],
        "rows": 1,  # of a quantizer of activations
        "weight_quantizer": None,
        # Its values are replaced: they need no draw from anybody's random numbers.
        "kernel_initializer": "zeros",
        "depthwise_initializer": "zeros",
    }

    def change(node):
        if node.get("class_name") == "SwitchableBatchNormalization":
            config = {key: node["config"][key] for key in ("name", "dtype")}
            return {"class_name": "_Affine", "config": config}
        if node.get("subsample", 1) > 1:
            # A stride, which runtimes are good at: it is taken outside of the
            # convolution because of the gradient only.
            conv = node["conv"]
            strides = {**conv["config"], "strides": node["subsample"]}
            return {**node, "subsample": 1, "conv": {**conv, "config": strides}}
        return node

    config = copies.rewritten(model.get_config(), single, change)
    with keras.saving.custom_object_scope({"_Affine": _Affine}):
        return classifier.Classifier.from_config(config)


def _norm_block(norm):
    """gamma, beta, mean and variance of a normalization as `table` has them."""
    gamma, beta, mean, variance = (
        np.array(weight, "float32")
        for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    variance = variance + np.float32(norm.epsilon)
    _, exponent = np.frexp(variance.max(axis=0))  # of the first power of two above
    half = -(-exponent // 2)
    return np.ldexp(gamma, -half), beta, mean, np.ldexp(variance, -2 * half)


def _copy(source, layer):
    """The weights of a layer; a quantized kernel becomes its levels."""
    values = source.weights
    if getattr(source, "weight_quantizer", None) is not None:
        biases = [] if source.bias is None else [source.bias]
        values = [source.quantized_kernel(), *biases]
    for weight, value in zip(layer.weights, values, strict=True):
        weight.assign(value)

"""Batch normalization with private parameters for each resolution.

Wang et al., Resolution Switchable Networks for Runtime Efficient Image Recognition,
ECCV 2020, section 3.1, Eq. (3).
"""

import math
import numbers

import keras
from keras import ops

from rs_keras import resolutions as resolutions_lib


@keras.saving.register_keras_serializable(package="rs_keras")
class SwitchableBatchNormalization(keras.layers.Layer):
    """Normalizes the last axis with the parameters of the given resolution.

    `y = gamma[s] * (x - mean[s]) / sqrt(variance[s] + epsilon) + beta[s]`

    gamma, beta, moving_mean and moving_variance are stored stacked, shape (S, C), rows
    in descending resolution. A trained resolution selects its row; any other number
    interpolates all four linearly between the two neighbouring rows, and outside the
    trained range takes the nearest row (the papers' rule for unseen resolutions). A
    scalar tensor does the same inside the graph.

    With one resolution, and `unbiased_moving_variance=False`, this layer equals
    `keras.layers.BatchNormalization(momentum=..., epsilon=...)`.

    Args:
        resolutions: distinct positive ints, in pixels; stored in descending order.
        views: rows for a single resolution that is repeated (RS-Nets, Table 6); the
            rows are then selected by `"224_view1"`, `"224_view2"`, ….
        momentum: share of the old moving statistics kept by an update.
        epsilon: added to the variance.
        unbiased_moving_variance: the moving variance is fed n / (n - 1) times the batch
            variance, as PyTorch and TensorFlow's fused kernel do; Keras feeds the
            batch variance. Normalization itself uses the batch variance in both.
        synchronized: statistics over all replicas of a `tf.distribute` strategy.
        center, scale: whether beta and gamma are trained, or stay as they start.
        gamma_initializer, beta_initializer: initial rows.

    Call arguments:
        x: tensor (N, ..., C).
        resolution: int, branch key, scalar tensor, or None for the largest.
        training: with True, statistics are those of the batch, and the moving
            statistics of this resolution's row are updated.

    Returns:
        Tensor with the shape and dtype of `x`.

    Raises:
        ValueError: `resolution` is not a positive number or a key of this layer, or
            training is asked for at a resolution without a row of its own (with one
            row every resolution trains it: batch normalization shared by all).
    """

    def __init__(
        self,
        resolutions,
        *,
        views=1,
        momentum=0.9,
        epsilon=1e-5,
        unbiased_moving_variance=True,
        synchronized=False,
        center=True,
        scale=True,
        gamma_initializer="ones",
        beta_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.resolutions = resolutions_lib.check_resolutions(resolutions, views=views)
        self.views = views
        self.keys = resolutions_lib.branch_keys(self.resolutions, views)
        self.momentum = momentum
        self.epsilon = epsilon
        self.unbiased_moving_variance = unbiased_moving_variance
        self.synchronized = synchronized
        self.center, self.scale = center, scale
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        shape = (len(self.keys), input_shape[-1])
        # autocast=False: all stay float32 under a mixed policy; `call` casts.
        for name, initializer, trained in (
            ("gamma", self.gamma_initializer, self.scale),
            ("beta", self.beta_initializer, self.center),
        ):
            options = {"name": name, "trainable": trained, "autocast": False}
            setattr(self, name, self.add_weight(shape, initializer, **options))
        self.moving_mean = self._moving("moving_mean", "zeros", shape)
        self.moving_variance = self._moving("moving_variance", "ones", shape)

    def _moving(self, name, initializer, shape):
        """A moving statistic; replicas have their own, whose mean is what others read.

        Not `add_weight`, which knows nothing of replicas that differ.
        """
        return keras.Variable(
            keras.initializers.get(initializer),
            shape=shape,
            dtype=self.variable_dtype,
            trainable=False,
            autocast=False,
            aggregation="mean",
            synchronization="on_read",
            name=name,
        )

    def call(self, x, resolution=None, training=None):
        if training and self.trainable:
            row = self._training_row(resolution)
            return self._normalize_batch(x, row)
        gamma, beta, mean, variance = self.parameters_at(resolution)
        # Half precision is upcast: the statistics of a wide layer overflow float16.
        y = ops.batch_normalization(
            ops.cast(x, self.variable_dtype),
            mean=mean,
            variance=variance,
            axis=-1,
            offset=beta,
            scale=gamma,
            epsilon=self.epsilon,
        )
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "resolutions": self.resolutions,
            "views": self.views,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "unbiased_moving_variance": self.unbiased_moving_variance,
            "synchronized": self.synchronized,
            "center": self.center,
            "scale": self.scale,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
            "beta_initializer": keras.initializers.serialize(self.beta_initializer),
        }

    def parameters_at(self, resolution=None):
        """gamma, beta, mean and variance, each (C,), as inference uses them."""
        stacked = (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        if resolution is None:
            return tuple(v[0] for v in stacked)
        if isinstance(resolution, str) and resolution in self.keys:
            return tuple(v[self._row(resolution)] for v in stacked)
        if _is_symbolic(resolution):
            upper, lower, weight = neighbours(resolution, self.resolutions)
            return tuple(
                weight * ops.take(v, upper, axis=0)
                + (1 - weight) * ops.take(v, lower, axis=0)
                for v in stacked
            )
        resolution = self._positive_number(resolution)
        upper, lower, weight = resolutions_lib.interpolation(
            resolution, self.resolutions
        )
        if upper == lower or weight == 1.0:
            return tuple(v[upper] for v in stacked)
        return tuple(weight * v[upper] + (1 - weight) * v[lower] for v in stacked)

    def _positive_number(self, resolution):
        number = isinstance(resolution, numbers.Real) and resolution is not True
        if not number or not resolution > 0:
            raise ValueError(
                "`resolution` must be a positive number, a scalar tensor, or None for "
                f"the largest. Received: resolution={resolution!r}"
            )
        return resolution

    def _row(self, resolution):
        if resolution not in self.keys:
            raise ValueError(
                f"`resolution` must be one of {self.keys}. "
                f"Received: resolution={resolution!r}"
            )
        return self.keys.index(resolution)

    def _training_row(self, resolution):
        if len(self.keys) == 1 or resolution is None:
            return 0
        if keras.ops.is_tensor(resolution):
            raise ValueError(
                "Training needs `resolution` as an int, since it selects the row whose "
                f"statistics are updated. Received: resolution={resolution!r}"
            )
        return self._row(resolution)

    def _normalize_batch(self, x, row):
        if self._use_fused(x):
            y, mean, unbiased = self._fused(x, row)
            biased = None
        else:
            y, mean, biased = self._unfused(x, row)
            unbiased = None
        count = self._count(x)
        # A single value has no unbiased variance; the fused kernel, too, divides by 1.
        bessel = count / ops.maximum(count - 1, 1)
        if self.unbiased_moving_variance:
            variance = unbiased if unbiased is not None else biased * bessel
        else:
            variance = biased if biased is not None else unbiased / bessel
        self._update_row(self.moving_mean, row, mean)
        self._update_row(self.moving_variance, row, variance)
        return y

    def _update_row(self, moving, row, batch):
        """moving[row] <- momentum * moving[row] + (1 - momentum) * batch."""
        step = (1 - self.momentum) * (ops.stop_gradient(batch) - moving[row])
        mine = (ops.arange(len(self.keys)) == row)[:, None]
        # where, and not a product: an overflow at one resolution stays in its row.
        old = ops.convert_to_tensor(moving)
        moving.assign(ops.where(mine, old + step[None, :], old))

    def _count(self, x):
        """How many values each channel's statistics are taken over."""
        count = ops.cast(math.prod(ops.shape(x)[:-1]), self.variable_dtype)
        if self.synchronized and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            replicas = tf.distribute.get_replica_context().num_replicas_in_sync
            count = count * replicas
        return count

    def _use_fused(self, x):
        # TensorFlow's kernel takes 4-D float tensors and gives no statistics over
        # replicas. Measured on 2 cores it is about twice as fast as the ops below.
        return (
            keras.backend.backend() == "tensorflow"
            and len(x.shape) == 4
            and not self.synchronized
            and keras.backend.standardize_dtype(x.dtype)
            in ("float16", "bfloat16", "float32")
            and self.variable_dtype == "float32"
        )

    def _fused(self, x, row):
        import tensorflow as tf

        # raw_ops, because tf.nn's wrapper silently raises epsilon to 1.001e-5.
        y, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma[row],
            offset=self.beta[row],
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            is_training=True,
        )
        return y, mean, unbiased

    def _unfused(self, x, row):
        x = ops.cast(x, self.variable_dtype)
        axes = list(range(len(x.shape) - 1))
        # On JAX an array that several devices share has one mean.
        synchronized = self.synchronized and keras.backend.backend() == "tensorflow"
        mean, biased = ops.moments(x, axes=axes, synchronized=synchronized)
        y = ops.batch_normalization(
            x,
            mean=mean,
            variance=biased,
            axis=-1,
            offset=self.beta[row],
            scale=self.gamma[row],
            epsilon=self.epsilon,
        )
        return ops.cast(y, self.compute_dtype), mean, biased


def neighbours(resolution, resolutions):
    """`resolutions.interpolation`, for a number or, in the graph, a scalar tensor."""
    if not _is_symbolic(resolution):
        return resolutions_lib.interpolation(resolution, resolutions)
    grid = ops.convert_to_tensor(resolutions, dtype="float32")
    resolution = ops.cast(resolution, "float32")
    last = len(resolutions) - 1
    above = ops.sum(ops.cast(grid >= resolution, "int32"))
    upper = ops.maximum(above - 1, 0)
    lower = ops.minimum(upper + 1, last)
    high, low = ops.take(grid, upper), ops.take(grid, lower)
    # Below the smallest resolution upper and lower are the same row; above the
    # largest the weight is cut to 1.
    gap = ops.maximum(high - low, 1)
    weight = ops.clip((resolution - low) / gap, 0, 1)
    return upper, lower, weight


def _is_symbolic(value):
    return ops.is_tensor(value) or isinstance(value, keras.KerasTensor)

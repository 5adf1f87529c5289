"""The multi-resolution training and test step, as a mixin for any Keras model.

Both TensorFlow and JAX train through the stock step of Keras: one fan-out over the
resolutions, one backward pass, no host round trip. What is ours is the objective
(`compute_loss`), the metrics and the resizing of a batch that comes as plain images;
and, with an option of `compile` that asks for it, the step of `training.step`.
"""

import contextlib
import dataclasses
import re

import keras
import numpy as np
from keras import ops

from rs_keras import resolutions as resolutions_lib
from rs_keras.losses import distillation
from rs_keras.training import optimizers
from rs_keras.training import step

_LABELS_RULE = "Labels must be integers of the shape (N,)"


class MultiResolutionTrainer:
    """Trains a model that maps {branch key: images} to {branch key: logits}.

    The host has `keys` (branch keys, descending), `num_classes`,
    `branch_images(images, fit)` and `call`; it calls `add_training_state()` once its
    keys are known. `compile(loss=...)` takes a `MultiResolutionDistillation`.
    """

    step_options = step.ORDINARY

    def add_training_state(self):
        """Creates alpha (S,), before the softmax, and the metrics."""
        self.alpha = self.add_weight(
            name="alpha", shape=(len(self.keys),), initializer="ones", autocast=False
        )
        names = ["loss_classification", "loss_ensemble", "loss_distillation"]
        names += [f"top1_{key}" for key in (*self.keys, "ensemble")]
        if self.num_classes > 5:
            names += [f"top5_{key}" for key in (*self.keys, "ensemble")]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.skipped_steps = step.SkippedSteps(name="skipped_steps")

    def compile(
        self,
        optimizer=None,
        loss=None,
        *,
        activation_memory="all",
        accumulate=1,
        skip_nonfinite=False,
        **kwargs,
    ):
        """Configures training.

        Args:
            optimizer: Keras optimizer, or None for `rs_keras.SGD` with its defaults.
            loss: `MultiResolutionDistillation`, or None for its default.
            activation_memory: "one_resolution" keeps the activations of one resolution
                at a time, and computes those of all but the largest twice: the same
                step in the memory of the largest alone. "all" keeps all.
            accumulate: number of equal parts in which a batch goes through the network
                before the mean of their gradients is applied. Statistics of batch
                normalization are those of a part, and move once a part.
            skip_nonfinite: a step whose loss or gradients are NaN or infinite leaves
                weights, optimizer, statistics, bases and metrics as they were, and is
                counted by the metric `skipped_steps`.
            **kwargs: `jit_compile`, `run_eagerly`, … of `keras.Model.compile`.

        Raises:
            ValueError: `loss` is something else, `metrics` are given, or an option is
                out of range.
        """
        for name in ("metrics", "weighted_metrics", "loss_weights"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    "The metrics are the accuracies of every resolution; `compile` "
                    f"takes no others. Received: {name}={kwargs[name]!r}"
                )
        options = step.Options(activation_memory, accumulate, skip_nonfinite)
        optimizer = optimizers.SGD() if optimizer is None else optimizer
        if loss is None:
            loss = distillation.MultiResolutionDistillation()
        if not isinstance(loss, distillation.MultiResolutionDistillation):
            raise ValueError(
                "`loss` must be a rs_keras.MultiResolutionDistillation. "
                f"Received: loss={loss!r}"
            )
        # Keras' CompileLoss knows nothing of alpha: the objective stays outside of it.
        super().compile(optimizer=optimizer, **kwargs)
        self.loss = loss
        self.step_options = options
        # A compiled model can be saved, and read back, before its first step.
        self.optimizer.build(self.trainable_variables)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            config["loss"] = keras.saving.serialize_keras_object(self.loss)
            config |= dataclasses.asdict(self.step_options)
            # JAX compiles every step, which says nothing of what TensorFlow shall do.
            if keras.backend.backend() == "jax" and config.get("jit_compile") is True:
                config["jit_compile"] = False
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        if keras.backend.backend() == "jax" and config.get("jit_compile") is False:
            config["jit_compile"] = True
        self.compile(**{k: v for k, v in config.items() if v is not None})

    @property
    def metrics(self):
        metrics = super().metrics
        if not self.step_options.skip_nonfinite:
            metrics = [m for m in metrics if not isinstance(m, step.SkippedSteps)]
        return metrics

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        """`keras.Model.fit`, after a look at labels that come as arrays."""
        self._check_labels(y)
        if isinstance(validation_data, tuple) and len(validation_data) == 2:
            self._check_labels(validation_data[1])
        with _named_mistakes(self.num_classes):
            return super().fit(x, y, *args, validation_data=validation_data, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        self._check_labels(y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        self._check_labels(y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def train_step(self, *args):
        """One optimizer step; args is (data) on TensorFlow, (state, data) on JAX."""
        *state, data = args
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = self.branches(x)
        if self.step_options == step.ORDINARY:
            return super().train_step(*state, (x, y, sample_weight))
        _check_targets(y, sample_weight)
        self._check_branches(x)
        return step.train_step(self, *state, x, y)

    def test_step(self, *args):
        *state, data = args
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = self.branches(x, "crop")
        return super().test_step(*state, (x, y, sample_weight))

    def branches(self, x, fit="squash"):
        """{branch key: images (N, r, r, 3)} of the images of a batch.

        Args:
            x: that already; or images (N, H, W, 3); or {"image": (N, r, r, 3) at the
                largest resolution, "mirrored": (N, branches) bool}, from which the
                other branches are made, mirrored where that says so.
            fit: as of `branch_images`, for plain images.

        Raises:
            ValueError: the images are not of the network's largest resolution.
        """
        if not isinstance(x, dict):
            return self.branch_images(x, fit)
        if resolutions_lib.MIRRORED not in x:
            return x
        images, mirrored = x[resolutions_lib.IMAGE], x[resolutions_lib.MIRRORED]
        sides, count = (max(self.resolutions),) * 2, len(self.keys)
        if (tuple(images.shape[1:3]), mirrored.shape[1]) != (sides, count):
            raise ValueError(
                f"Images must have the shape (N, {sides[0]}, {sides[0]}, 3), with "
                f"{count} branches. Received: {tuple(images.shape)}, "
                f"{mirrored.shape[1]} branches"
            )
        found = self.branch_images(images, "squash")
        for n, key in enumerate(self.keys[1:], 1):  # the first is the image itself
            turned = ops.flip(found[key], axis=2)
            found[key] = ops.where(mirrored[:, n, None, None, None], turned, found[key])
        return found

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        """The objective on {key: logits (N, C)}; a scalar."""
        _check_targets(y, sample_weight)
        self._check_branches(y_pred)
        logits = ops.stack([y_pred[key] for key in self.keys])  # (S, N, C)
        parts = self.loss.parts(y, logits, self.alpha)
        for name in ("classification", "ensemble", "distillation"):
            # Weighted as Keras weights the loss: the last batch may be smaller.
            self.means[f"loss_{name}"].update_state(
                parts[name], sample_weight=ops.shape(logits)[1]
            )
        self._update_accuracies(y, ops.stop_gradient(logits))
        # Gradients are summed over replicas: as in Keras' own losses each replica
        # contributes its share of the mean.
        strategy = getattr(self, "distribute_strategy", None)
        return parts["loss"] / (strategy.num_replicas_in_sync if strategy else 1)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The means of losses and accuracies, which `compute_loss` has updated.

        There and not here, because on JAX only the metrics have values here: alpha,
        which the ensemble needs, has none.
        """
        return self.get_metrics_result()

    def _update_accuracies(self, labels, logits):
        """Top-1 and top-5 accuracy of every branch and of the ensemble."""
        ensemble = distillation.ensemble_logits(logits, self.alpha)
        outputs = [logits[s] for s in range(len(self.keys))] + [ensemble]
        for key, output in zip((*self.keys, "ensemble"), outputs, strict=True):
            for k in (1, 5) if self.num_classes > 5 else (1,):
                correct = _correct(labels, ops.stop_gradient(output), k)
                self.means[f"top{k}_{key}"].update_state(correct)

    def evaluate(self, x=None, y=None, *args, return_dict=True, **kwargs):
        """Loss and accuracies at every resolution and of the ensemble, as a dict.

        Args:
            x: dataset of ({key: images}, labels) or (images, labels); or images with
                `y` = labels. Plain images go through the validation transform, as in
                `predict`.
        """
        self._check_labels(y)
        found = super().evaluate(x, y, *args, return_dict=return_dict, **kwargs)
        if return_dict:
            found.pop("skipped_steps", None)  # of training
        return found

    def _check_labels(self, labels):
        """Refuses array labels that the graph would meet with a NaN or a long trace."""
        if labels is None:
            return
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{_LABELS_RULE}. Received: shape={labels.shape}, dtype={labels.dtype}"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise ValueError(
                f"Labels must be in [0, {self.num_classes}). "
                f"Received: labels from {labels.min()} to {labels.max()}"
            )

    def _check_branches(self, values):
        if any(key not in values for key in self.keys):
            raise ValueError(
                f"Training and evaluation need every branch of {self.keys}. "
                f"Received: keys={tuple(values)}"
            )


def _check_targets(labels, sample_weight):
    """Refuses labels of the wrong kind, and weights, while the step is traced."""
    if sample_weight is not None:
        raise ValueError(
            "`sample_weight` is not supported. Received: sample_weight of shape "
            f"{tuple(sample_weight.shape)}"
        )
    if labels is None:
        raise ValueError("Training and evaluation need labels. Received: labels=None")
    try:
        shape = tuple(labels.shape)
    except ValueError:  # TensorFlow: not even the rank is known
        shape = None
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if shape is None or len(shape) != 1 or "int" not in dtype:
        raise ValueError(f"{_LABELS_RULE}. Received: shape={shape}, dtype={dtype}")


@contextlib.contextmanager
def _named_mistakes(num_classes):
    """TensorFlow's report of a dataset's mistake, as one sentence."""
    try:
        yield
    except Exception as error:
        match = re.search(r"label value of (-?\d+) which is outside", str(error))
        if match is not None:
            raise ValueError(
                f"Labels must be in [0, {num_classes}). Received: label {match[1]}"
            ) from error
        match = re.search(rf"({step.PARTS_RULE}.*?) *\] *\[(\d+)\]", str(error))
        if match is not None:
            raise ValueError(f"{match[1]} {match[2]}") from error
        raise


def _correct(labels, logits, k):
    """1.0 where the label is among the k largest logits: (N,).

    Not `ops.in_top_k`, which counts every tie as a hit: equal logits would be 100%
    right, and half-precision logits tie often. Here the lower class wins, as in argmax.
    """
    _, classes = ops.top_k(logits, k=k)
    hits = ops.any(classes == ops.cast(labels, classes.dtype)[:, None], axis=-1)
    return ops.cast(hits, "float32")

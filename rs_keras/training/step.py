"""The training step where it is not Keras' own: less memory, and steps left out.

Three options of `MultiResolutionTrainer.compile`, which compose:

- `activation_memory="one_resolution"`: the activations of two resolutions are never
  alive together. The largest runs forward and waits; the others run forward for their
  logits alone; the gradients of the objective with respect to the logits then go
  backward through the largest, and through one resolution after the other, each of
  which is computed a second time (Chen et al., Training Deep Nets with Sublinear Memory
  Cost, 2016). The gradients are those of the ordinary step.
- `accumulate=K`: the batch goes through the network in K parts, and the mean of their
  gradients is applied once. Batch normalization takes its statistics part by part, and
  its moving statistics and the quantizers' bases move K times.
- `skip_nonfinite=True`: a step whose loss or gradients are not finite changes nothing.

`step_tensorflow` and `step_jax` hold the step itself.
"""

import dataclasses

import keras

from rs_keras import resolutions as resolutions_lib

ACTIVATION_MEMORIES = ("all", "one_resolution")
# How TensorFlow tells it when a step has started; `fit` makes a ValueError of it.
PARTS_RULE = "`accumulate` must divide the number of images of every batch"


@dataclasses.dataclass(frozen=True)
class Options:
    """How a step is computed; see `MultiResolutionTrainer.compile`."""

    activation_memory: str = "all"
    accumulate: int = 1
    skip_nonfinite: bool = False

    def __post_init__(self):
        if self.activation_memory not in ACTIVATION_MEMORIES:
            raise ValueError(
                f"`activation_memory` must be one of {ACTIVATION_MEMORIES}. "
                f"Received: activation_memory={self.activation_memory!r}"
            )
        if not resolutions_lib.is_integer(self.accumulate) or self.accumulate < 1:
            raise ValueError(
                "`accumulate` must be a positive integer. "
                f"Received: accumulate={self.accumulate!r}"
            )
        if not isinstance(self.skip_nonfinite, bool):
            raise ValueError(
                "`skip_nonfinite` must be True or False. "
                f"Received: skip_nonfinite={self.skip_nonfinite!r}"
            )


ORDINARY = Options()


class SkippedSteps(keras.metrics.Sum):
    """Steps that changed nothing: the same number on every replica, counted once."""

    def add_variable(self, *args, **kwargs):
        kwargs["aggregation"] = "only_first_replica"
        return super().add_variable(*args, **kwargs)


def train_step(model, *args):
    """One step; args is (x, y) on TensorFlow, (state, x, y) on JAX.

    Args:
        model: a compiled model with `MultiResolutionTrainer`.
        x: {branch key: images (N, r, r, 3)} of every branch.
        y: labels (N,).

    Returns:
        As Keras' own step: logs, on JAX (logs, state).
    """
    return _backend().train_step(model, *args)


def gradients(model, *args):
    """Loss and gradients of a step, which it has not applied yet.

    The forward pass has updated metrics and what else it updates.

    Args:
        model, args: as of `train_step`.

    Returns:
        (loss, [gradient or None of each trainable weight]), scaled where the optimizer
        scales the loss; on JAX also the non-trainable and the metrics' variables.
    """
    return _backend().gradients(model, *args)


def two_passes(model):
    """Whether all resolutions but the largest are computed twice."""
    one = model.step_options.activation_memory == "one_resolution"
    return one and len(model.keys) > 1


def check_parts(size, accumulate):
    """ValueError unless a batch of this size falls into equal parts."""
    if size % accumulate:
        raise ValueError(
            f"{PARTS_RULE}. Received: accumulate={accumulate} and {size} images"
        )


def judged(model, loss, gradients):
    """The tensors that must be finite for a step to count.

    Overflows of scaled gradients are the business of `LossScaleOptimizer`: it leaves
    the step out, lowers the scale and goes on. There the loss alone is looked at.
    """
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        return [loss]
    return [loss, *(g for g in gradients if g is not None)]


def added(totals, terms):
    """Sums of two lists of gradients, in which None stands for no gradient."""
    return [
        a if b is None else b if a is None else a + b
        for a, b in zip(totals, terms, strict=True)
    ]


def _backend():
    # Imported here: neither backend needs the other to be installed.
    if keras.backend.backend() == "tensorflow":
        from rs_keras.training import step_tensorflow

        return step_tensorflow
    if keras.backend.backend() == "jax":
        from rs_keras.training import step_jax

        return step_jax
    raise ValueError(
        "`activation_memory`, `accumulate` and `skip_nonfinite` need the TensorFlow or "
        f"the JAX backend. Received: KERAS_BACKEND={keras.backend.backend()}"
    )

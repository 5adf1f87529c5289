"""Multi-resolution ensemble distillation (MRED).

Wang et al., Resolution Switchable Networks for Runtime Efficient Image Recognition,
ECCV 2020, section 3.3.
"""

import keras
from keras import ops

from rs_keras.losses import classification

MODES = ("full", "vanilla", "top_down", "largest", "none")


def ensemble_logits(logits, alpha):
    """z_0 = sum_s softmax(alpha)_s z_s (Eq. 5): (S, N, C), (S,) -> (N, C)."""
    return ops.sum(
        ensemble_weights(alpha, logits.dtype)[:, None, None] * logits, axis=0
    )


def ensemble_weights(alpha, dtype="float32"):
    """softmax(alpha), (S,); written out, since Keras warns at a softmax over one."""
    alpha = ops.cast(alpha, dtype)
    scores = ops.exp(alpha - ops.stop_gradient(ops.max(alpha)))
    return scores / ops.sum(scores)


def teacher_pairs(mode, count):
    """The (teacher, student) pairs of a mode; 0 is the ensemble, s >= 1 is p_s.

    full: every t < s (Eq. 10). vanilla: the ensemble teaches all (Eq. 8). top_down:
    Eq. 10 without the ensemble's terms. largest: only p_1 teaches. none: no pairs.
    (The variants are the columns of Table 5.)
    """
    teachers = {
        "full": range(count),
        "vanilla": (0,),
        "top_down": range(1, count),
        "largest": (1,),
        "none": (),
    }[mode]
    return [(t, s) for t in teachers for s in range(t + 1, count + 1)]


@keras.saving.register_keras_serializable(package="rs_keras")
class MultiResolutionDistillation(keras.losses.Loss):
    """L = L_cls + L_ens + weight * L_dis (Eq. 9).

    L_cls: cross-entropy, summed over the resolutions (Eq. 2). L_ens: cross-entropy of
    the ensemble (Eq. 6), whose logits are frozen: it moves alpha only. L_dis: KL
    divergences from teachers to students (Eq. 8 or 10), whose teachers are frozen: it
    moves the network only. All are means over the batch.

    Args:
        mode: "full" (Eq. 10), "vanilla" (Eq. 8), "top_down", "largest" or "none"; see
            `teacher_pairs`. L_ens is in the total of every mode, as in the reference.
        weight: factor of L_dis; None takes the paper's: 2 / (S + 1) for "full" and
            "top_down", 1 for the others.
        name: name of the loss.

    Raises:
        ValueError: unknown `mode`, or `weight` negative.
    """

    def __init__(self, mode="full", weight=None, name="multi_resolution_distillation"):
        super().__init__(name=name)
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}. Received: mode={mode!r}")
        if weight is not None and not weight >= 0:
            raise ValueError(
                f"`weight` must be None or at least 0. Received: weight={weight!r}"
            )
        self.mode = mode
        self.weight = weight

    def parts(self, labels, logits, alpha):
        """The terms of the objective.

        Args:
            labels: (N,) integers in [0, C).
            logits: (S, N, C), resolutions descending.
            alpha: (S,), scores before the softmax.

        Returns:
            Dict of scalars: "loss", "classification", "ensemble", "distillation"
            (with its weight) and "distillation_raw" (without).
        """
        logits = ops.convert_to_tensor(logits)
        count = logits.shape[0]
        branches = [logits[s] for s in range(count)]
        frozen = ops.stop_gradient(logits)
        ensemble = ensemble_logits(frozen, alpha)

        losses = [ops.mean(classification.cross_entropy(labels, z)) for z in branches]
        classification_loss = sum(losses[1:], losses[0])
        ensemble_loss = ops.mean(classification.cross_entropy(labels, ensemble))

        teachers = [ops.stop_gradient(ensemble), *(frozen[s] for s in range(count))]
        raw = ops.zeros((), dtype=logits.dtype)
        for t, s in teacher_pairs(self.mode, count):
            raw += ops.mean(classification.kl_divergence(teachers[t], branches[s - 1]))
        distillation = self._weight(count) * raw
        return {
            "loss": classification_loss + ensemble_loss + distillation,
            "classification": classification_loss,
            "ensemble": ensemble_loss,
            "distillation": distillation,
            "distillation_raw": raw,
        }

    def call(self, y_true, y_pred):
        """The loss of (logits (S, N, C), alpha (S,)) as one scalar."""
        logits, alpha = y_pred
        return self.parts(y_true, logits, alpha)["loss"]

    def get_config(self):
        return {"mode": self.mode, "weight": self.weight, "name": self.name}

    def _weight(self, count):
        if self.weight is not None:
            return self.weight
        return 2 / (count + 1) if self.mode in ("full", "top_down") else 1.0

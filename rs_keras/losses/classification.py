"""Losses of a classifier: pure, per example, logits in."""

from keras import ops


def cross_entropy(labels, logits):
    """Cross-entropy of integer labels, `-log softmax(logits)[label]`.

    Args:
        labels: (N,) integers in [0, C).
        logits: (N, C).

    Returns:
        (N,), the dtype of `logits`.
    """
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def kl_divergence(teacher, student):
    """KL(softmax(teacher) || softmax(student)), in nats (RS-Nets, Eq. 7).

    Args:
        teacher, student: logits, (N, C).

    Returns:
        (N,), the dtype of the logits.
    """
    log_p = ops.log_softmax(teacher, axis=-1)
    log_q = ops.log_softmax(student, axis=-1)
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)

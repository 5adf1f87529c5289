"""Accuracy of a classifier at every resolution and of the ensemble."""

import numpy as np

from rs_keras.losses import distillation

# The objective whose terms are reported for a model that was never compiled.
_DEFAULT_LOSS = distillation.MultiResolutionDistillation()


class Accuracy:
    """Counts of top-1 and top-5 hits, per class.

    Args:
        num_classes: number of classes; top-5 is not counted below six.
    """

    def __init__(self, num_classes):
        self.seen = np.zeros(num_classes, np.int64)
        self.top1 = np.zeros(num_classes, np.int64)
        self.top5 = np.zeros(num_classes, np.int64) if num_classes > 5 else None

    def update(self, labels, logits):
        """Adds a batch: labels (N,) ints, logits (N, C)."""
        size = len(self.seen)
        self.seen += np.bincount(labels, minlength=size)
        hits = np.argmax(logits, axis=-1) == labels
        self.top1 += np.bincount(labels[hits], minlength=size)
        if self.top5 is not None:
            five = np.argpartition(-logits, 4, axis=-1)[:, :5]
            hits = (five == labels[:, None]).any(axis=-1)
            self.top5 += np.bincount(labels[hits], minlength=size)

    def result(self):
        """{"top1", "top5", "mean_class"}: fractions; top5 is None below six classes.

        mean_class is the mean over the classes that occur of their own accuracy.
        """
        total = max(self.seen.sum(), 1)
        occurs = self.seen > 0
        per_class = self.top1[occurs] / self.seen[occurs]
        return {
            "top1": float(self.top1.sum() / total),
            "top5": None if self.top5 is None else float(self.top5.sum() / total),
            "mean_class": float(per_class.mean()) if occurs.any() else 0.0,
        }


def predictions(model, dataset, keys, *, on_batch=None):
    """What a network says of each batch of a dataset, in order.

    Args:
        model: `Classifier`.
        dataset: iterable of ({key: images (N, r, r, 3)}, labels (N,)).
        keys: the keys to compute.
        on_batch: function of no arguments, called after every batch.

    Yields:
        (labels (N,), {key: logits (N, C)}), numpy arrays.
    """
    for images, labels in dataset:
        outputs = model.predict_on_batch({key: np.asarray(images[key]) for key in keys})
        yield np.asarray(labels), {key: np.asarray(outputs[key]) for key in keys}
        if on_batch is not None:
            on_batch()


def evaluate(model, dataset, keys=None, *, network=None, on_batch=None):
    """One pass over a dataset at several resolutions.

    Args:
        model: `Classifier`.
        dataset: iterable of ({key: images (N, r, r, 3)}, labels (N,)).
        keys: the keys to test; default: the trained ones. A resolution between them
            has interpolated batch normalization.
        network: a copy of the model with rows for untrained keys, which computes in
            its place; ensemble and losses are those of the model's own keys.
        on_batch: function of no arguments, called after every batch.

    Returns:
        {"resolutions": {str(key): {"top1", "top5", "mean_class"}}, "ensemble": the
        same or None unless every trained key is tested, "losses": {"loss",
        "classification", ...} or None likewise}.
    """
    keys = tuple(model.keys if keys is None else keys)
    accuracies = {key: Accuracy(model.num_classes) for key in keys}
    ensemble = Accuracy(model.num_classes)
    complete = set(model.keys) <= set(keys)
    alpha = np.asarray(model.alpha)
    weights = np.asarray(distillation.ensemble_weights(alpha))
    loss = model.loss if model.compiled else _DEFAULT_LOSS
    losses, count = {}, 0
    batches = predictions(network or model, dataset, keys, on_batch=on_batch)
    for labels, outputs in batches:
        for key in keys:
            accuracies[key].update(labels, outputs[key])
        if complete:
            logits = np.stack([outputs[key] for key in model.keys])
            ensemble.update(labels, np.tensordot(weights, logits, axes=1))
            parts = loss.parts(labels, logits, alpha)
            for name, value in parts.items():
                losses[name] = losses.get(name, 0.0) + float(value) * len(labels)
        count += len(labels)
    return {
        "resolutions": {str(key): accuracies[key].result() for key in keys},
        "ensemble": ensemble.result() if complete else None,
        "losses": {k: v / max(count, 1) for k, v in losses.items()} or None,
    }

"""What the papers look at beside accuracy."""

import keras
import numpy as np

from rs_keras.evaluation import evaluator
from rs_keras.evaluation import statistics


def hits(model, dataset, keys=None, *, on_batch=None):
    """Which images a network classifies correctly, at each of several resolutions.

    Args:
        model: `Classifier`.
        dataset: iterable of ({key: images (N, r, r, 3)}, labels (N,)), in order.
        keys: default: the trained ones.
        on_batch: function of no arguments, called after every batch.

    Returns:
        (labels (N,), {key: bool (N,)}).
    """
    keys = tuple(model.keys if keys is None else keys)
    labels, found = [], {key: [] for key in keys}
    batches = evaluator.predictions(model, dataset, keys, on_batch=on_batch)
    for batch, outputs in batches:
        labels.append(batch)
        for key in keys:
            found[key].append(np.argmax(outputs[key], axis=-1) == batch)
    found = {key: np.concatenate(parts) for key, parts in found.items()}
    return np.concatenate(labels), found


def hit_miss(found):
    """RS-Nets, Table 1: what one resolution gets right and another one does not.

    Args:
        found: {key: bool (N,)}, of `hits`; of individual networks, all of theirs.

    Returns:
        {str(key that misses): {str(key that hits): share of all images}}; without the
        diagonal.
    """
    return {
        str(miss): {
            str(hit): float(np.mean(found[hit] & ~found[miss]))
            for hit in found
            if hit != miss
        }
        for miss in found
    }


def batch_norm(model):
    """RS-Nets, Fig. 6: what batch normalization learnt, by layer and resolution.

    Args:
        model: `Classifier`.

    Returns:
        {"layers": [name, ...], "rows": {str(key): {"gamma": [mean over the channels,
        of each layer], "beta", "mean", "variance": the same}}}.

    Raises:
        ValueError: all resolutions share one normalization.
    """
    norms = statistics.norms(model)
    if any(norm.keys != model.keys for norm in norms):
        raise ValueError(
            "Only private batch normalizations can be compared. "
            f"Received: {model.name}, trained with --method=shared_bn"
        )
    weights = {
        "gamma": [norm.gamma for norm in norms],
        "beta": [norm.beta for norm in norms],
        "mean": [norm.moving_mean for norm in norms],
        "variance": [norm.moving_variance for norm in norms],
    }
    rows = {
        str(key): {
            name: [float(np.mean(np.array(weight)[row])) for weight in found]
            for name, found in weights.items()
        }
        for row, key in enumerate(model.keys)
    }
    return {"layers": [norm.name for norm in norms], "rows": rows}


def class_changes(labels, largest, smallest, class_names):
    """The accuracy of each class at two resolutions, by its change.

    Args:
        labels: (N,) ints.
        largest, smallest: (N,) bool, as of `hits`.
        class_names: one for each class.

    Returns:
        {class: {"images", "largest", "smallest", "change"}}: accuracies, and smallest
        minus largest, from the worst to the best; of the classes that occur.
    """
    rows = {}
    for label, name in enumerate(class_names):
        mine = labels == label
        if mine.any():
            high, low = float(largest[mine].mean()), float(smallest[mine].mean())
            row = {"images": int(mine.sum()), "largest": high, "smallest": low}
            rows[name] = {**row, "change": low - high}
    return dict(sorted(rows.items(), key=lambda item: item[1]["change"]))


# At which shares of the features `cumulative` says how large they are.
SHARES = np.linspace(0, 1, 101)


def features(model, batches, key, *, on_batch=None):
    """What the head of a network is given at one resolution, (N, C) float32.

    Args:
        model: `Classifier`.
        batches: iterable of images (N, r, r, 3).
        key: the branch or resolution.
        on_batch: function of no arguments, called after every batch.
    """
    extractor, found = _Features(model, key), []
    for images in batches:
        found.append(np.asarray(extractor.predict_on_batch(np.asarray(images))))
        if on_batch is not None:
            on_batch()
    return np.concatenate(found).astype("float32")


class _Features(keras.Model):
    """Images of one resolution -> features, as one graph."""

    def __init__(self, network, key):
        super().__init__(name=f"features_{key}")
        self._network = network
        self._key = key
        self.built = True

    def call(self, x):
        return self._network.features(x, resolution=self._key, training=False)


def cumulative(train, test):
    """RS-Nets, Fig. 3: how features differ between two ways to prepare images.

    Args:
        train, test: arrays of features of the same images, prepared as for training and
            as for testing.

    Returns:
        {"train": [the value below which each of `SHARES` of all features lie], "test":
        the same, "gap": the largest distance of the two distribution functions
        (Kolmogorov and Smirnov's), "mean_train", "mean_test"}.
    """
    train, test = np.sort(np.ravel(train)), np.sort(np.ravel(test))
    # The distance is largest at a jump of either; one array more, not four: of many
    # images they are large.
    gap = 0.0
    for one, other in ((train, test), (test, train)):
        below = np.searchsorted(other, one, side="right") / len(other)
        below -= np.searchsorted(one, one, side="right") / len(one)
        gap = max(gap, float(np.max(np.abs(below))))
    return {
        "train": np.quantile(train, SHARES).tolist(),
        "test": np.quantile(test, SHARES).tolist(),
        "gap": gap,
        "mean_train": float(train.mean(dtype="float64")),
        "mean_test": float(test.mean(dtype="float64")),
    }

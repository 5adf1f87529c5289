"""What the papers look at beside accuracy."""

import numpy as np

from rs_keras.layers import conv_bn
from rs_keras.layers import switchable_norm


def hits(model, dataset, keys=None, *, on_batch=None):
    """Which images a network classifies correctly, at each of several resolutions.

    Args:
        model: `Classifier`.
        dataset: iterable of ({key: images (N, r, r, 3)}, labels (N,)), in order.
        keys: default: the trained ones.
        on_batch: function of no arguments, called after every batch.

    Returns:
        {key: bool array, one for each image}.
    """
    keys = tuple(model.keys if keys is None else keys)
    found = {key: [] for key in keys}
    for images, labels in dataset:
        labels = np.asarray(labels)
        images = {key: np.asarray(images[key]) for key in keys}
        outputs = model.predict_on_batch(images)
        for key in keys:
            found[key].append(np.argmax(outputs[key], axis=-1) == labels)
        if on_batch is not None:
            on_batch()
    return {key: np.concatenate(parts) for key, parts in found.items()}


def hit_miss(found):
    """RS-Nets, Table 1: what one resolution gets right and another one does not.

    Args:
        found: what `hits` returned; of individual networks, all of theirs.

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
    kind = switchable_norm.SwitchableBatchNormalization
    norms = [x for x in conv_bn.leaves(model.blocks) if isinstance(x, kind)]
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

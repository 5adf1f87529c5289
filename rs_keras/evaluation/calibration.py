"""Batch normalization for resolutions that were not trained.

The papers interpolate all four parameters (RS-Nets, section 4.2, and SAN, supplement,
Eq. (1)); or they measure mean and variance anew on training images (SAN, supplement).
"""

import contextlib
import time

import numpy as np

from rs_keras import flag_definitions
from rs_keras import resolutions as resolutions_lib
from rs_keras.evaluation import statistics
from rs_keras.models import classifier
from rs_keras.models import copies
from rs_keras.models import preprocessing

MODES = flag_definitions.BN_MODES
# calibrate_exact ends where a pass moves no mean by more of a deviation, and no
# variance by more of itself: a few roundings of float32.
SETTLED = 1e-5


def add_resolution(model, resolution, dataset=None, *, bn="calibrate", images=None):
    """A copy of a classifier with a row of batch normalization for one more resolution.

    gamma and beta of the new row are interpolated between the two neighbouring rows;
    outside the trained range they are those of the nearest. What becomes of mean and
    variance is up to `bn`:

    - "interpolate": interpolated as well, what the network does without a row;
    - "nearest": all four are those of the nearest resolution (proxy inference), of two
      as near the larger;
    - "calibrate": those of training images, in one pass: each batch is normalized by
      its own statistics, as in training, so that they depend on the batch size;
    - "calibrate_exact": those of training images, each layer's over all of them once
      the layers before it have theirs. The batch size has no part in them; a few
      passes.

    Statistics are pooled: mean and variance over all images at once. Quantizers and
    dropout are as at inference.

    Args:
        model: `Classifier` of one view; is left as it is.
        resolution: int, in pixels.
        dataset: for the last two, batches of training images as `fit` takes them:
            (images, labels), images alone, or ({resolution: images}, labels). Images
            are (N, H, W, 3), RGB 0..255; those of another size are squashed.
        images: the number of images to take; default: all of the dataset, which then
            must end.

    Returns:
        `Classifier` with that resolution among its own: for `predict`, `save` and
        exports. `added_resolutions[resolution]` says how the row was made: "bn",
        "images", "batch_size" and "passes". It is not compiled.

    Raises:
        ValueError: an argument breaks these rules, or the dataset has fewer images.
    """
    if not isinstance(model, classifier.Classifier):
        raise ValueError(
            "`model` must be a rs_keras.Classifier; make_switchable makes one of "
            f"another Keras model. Received: model={model!r}"
        )
    resolution = model.check_resolution(resolution)
    check_mode(bn)
    if images is not None and images < 1:
        raise ValueError(f"`images` must be at least 1. Received: images={images}")
    if resolution in model.resolutions:
        raise ValueError(
            f"`resolution` must be a new one, beside {model.resolutions}. "
            f"Received: resolution={resolution}"
        )
    if calibrates(bn) and dataset is None:
        raise ValueError(
            f"`bn={bn!r}` needs a `dataset` of training images. Received: dataset=None"
        )

    def load(resolution):
        return _collect(dataset, resolution, images)

    return add_resolutions(model, (resolution,), bn, load)


def add_resolutions(model, resolutions, bn, load, *, progress=None, report=None):
    """`add_resolution` for several at once.

    Args:
        load: function of a resolution, returning its batches of training images:
            arrays (N, r, r, 3).
        progress: function of (title, number of batches), returning an object whose
            `step()` is called after each.
        report: function of a sentence, called once a resolution has its row.
    """
    check_mode(bn)
    rule = resolutions_lib.interpolation
    if bn == "nearest":
        rule = resolutions_lib.nearest
    found = copies.with_resolutions(model, resolutions, rule)
    new = [r for r in found.resolutions if r not in model.resolutions]
    for resolution in new:
        found.added_resolutions[resolution] = {"bn": bn}
    if not calibrates(bn):
        return found
    _check_private(found)
    observing = statistics.observing(found)
    for resolution in new:
        start = time.perf_counter()
        batches = list(load(resolution))
        how = found.added_resolutions[resolution]
        how["images"] = sum(map(len, batches))
        how["batch_size"] = max(map(len, batches))
        calibration = _Calibration(observing, resolution, batches, progress)
        how["passes"] = calibration.run(exact=bn == "calibrate_exact")
        if report is not None:
            report(
                f"{bn} at {resolution}: {how['images']} training images in batches of "
                f"{how['batch_size']}, passes: {how['passes']}, "
                f"{time.perf_counter() - start:.1f} s"
            )
    for source, layer in zip(
        statistics.norms(observing), statistics.norms(found), strict=True
    ):
        layer.set_weights(source.get_weights())
    return found


def check_mode(bn):
    """Raises ValueError unless it is one of `MODES`."""
    if bn not in MODES:
        raise ValueError(f"`bn` must be one of {MODES}. Received: bn={bn!r}")


def calibrates(bn):
    """Whether a mode needs training images."""
    return bn.startswith("calibrate")


class _Calibration:
    """Measures the statistics of one resolution and writes them into its row."""

    def __init__(self, network, resolution, batches, progress):
        self._norms = statistics.norms(network)
        self._row = network.resolutions.index(resolution)
        self._batches = batches
        self._title = f"calibrate at {resolution}"
        self._progress = progress
        # The first by the statistics of a batch, the second by those of the row.
        self._by_batch, self._by_row = (
            statistics.Statistics(network, resolution, by_batch)
            for by_batch in (True, False)
        )

    def run(self, exact):
        """The number of passes over the images."""
        self._pass(self._by_batch)
        passes, moved = 1, float("inf") if exact else 0.0
        # Each pass gives every layer its statistics behind the rows of the pass before.
        # A layer's are right one pass after those of all layers before it: the passes
        # end with the rows that going layer by layer would find, after about as many
        # passes as layers follow one another.
        while moved > SETTLED and passes <= len(self._norms):
            moved = self._pass(self._by_row)
            passes += 1
        return passes

    def _pass(self, model):
        """How far the farthest statistic moved."""
        pooled = [statistics.Pooled() for _ in self._norms]
        progress = self._progress and self._progress(self._title, len(self._batches))
        for batch in self._batches:
            found = model.predict_on_batch(batch)
            for pool, calls in zip(pooled, found, strict=True):
                for mean, variance, count in calls:
                    pool.add(np.asarray(mean), np.asarray(variance), float(count))
            if progress:
                progress.step()
        return max(map(self._write, self._norms, pooled))

    def _write(self, norm, pool):
        mean, variance = np.array(norm.moving_mean), np.array(norm.moving_variance)
        new = pool.variance
        if norm.unbiased_moving_variance:
            new = new * pool.count / max(pool.count - 1, 1)
        if not np.all(np.isfinite([pool.mean, new])):
            raise ValueError(
                "The network's activations must be finite to be measured. "
                f"Received: {norm.name}, which meets others"
            )
        scale = new + norm.epsilon
        moved = max(
            np.max(np.abs(pool.mean - mean[self._row]) / np.sqrt(scale)),
            np.max(np.abs(new - variance[self._row]) / scale),
        )
        mean[self._row], variance[self._row] = pool.mean, new
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
        return moved


def _check_private(model):
    if any(norm.resolutions != model.resolutions for norm in statistics.norms(model)):
        raise ValueError(
            "A batch normalization that all resolutions share has no row to calibrate "
            "for one of them; use interpolate. "
            f"Received: {model.name}, trained with --method=shared_bn"
        )


def _collect(dataset, resolution, number):
    """The batches of a dataset at a resolution, together `number` images."""
    batches, count = [], 0
    with contextlib.suppress(StopIteration):
        elements = iter(dataset)
        while number is None or count < number:
            images = _images(next(elements), resolution)
            images = images if number is None else images[: number - count]
            batches.append(images)
            count += len(images)
    if count < (number or 1):
        raise ValueError(
            f"The calibration must have all of its {number or 1} images. "
            f"Received: a dataset of {count}"
        )
    return batches


def _images(element, resolution):
    """Images (N, r, r, 3) of one element of a dataset."""
    images = element[0] if isinstance(element, tuple | list) else element
    if isinstance(images, dict):
        if resolution not in images:
            raise ValueError(
                f"A dataset of several resolutions must have {resolution}. "
                f"Received: keys={tuple(images)}"
            )
        images = images[resolution]
    fitted = preprocessing.fit_images(np.asarray(images), resolution, "squash")
    return np.asarray(fitted)

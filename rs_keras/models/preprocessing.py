"""From images of any size to the r x r images of one resolution, with keras.ops.

The arithmetic is that of the data pipeline's validation transform, so that predicting
raw validation images equals evaluating them.
"""

import os
import warnings

import keras
import numpy as np
from keras import ops

from rs_keras import resolutions as resolutions_lib

FITS = ("crop", "squash")


def check_images(images):
    """Returns the images as given; raises ValueError unless they are RGB 0..255 NHWC.

    Datasets and other iterables pass: their batches are checked as they come.
    """
    if isinstance(images, (str, os.PathLike)):
        raise ValueError(
            "Images must be an array (N, H, W, 3) or a dataset of such; files are "
            f"classified by `python -m rs_keras.predict`. Received: {images!r}"
        )
    if isinstance(images, (list, tuple)):
        sizes = {np.shape(image) for image in images}
        if len(sizes) > 1:
            raise ValueError(
                "Images of one batch must have one size. "
                f"Received: {len(sizes)} sizes, as {sorted(sizes)[:2]}"
            )
        images = np.asarray(images)
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        return images
    try:
        shape = tuple(images.shape)
    except ValueError:  # TensorFlow: not even the rank is known
        shape = None
    if shape is None or len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "Images must have the shape (N, H, W, 3), RGB 0..255. "
            f"Received: shape={shape}"
        )
    dtype = getattr(images.dtype, "name", str(images.dtype)).removeprefix("torch.")
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(
            "Images must be uint8 or float, with values 0..255. "
            f"Received: dtype={dtype}"
        )
    return images


def check_batch(images):
    """`check_images` of what `predict` is given: also not empty; warns of a scale.

    Raises:
        ValueError: see the message.
    """
    images = check_images(images)
    if not isinstance(images, np.ndarray):
        return images
    if not len(images):
        raise ValueError(
            f"At least one image is needed. Received: shape={images.shape}"
        )
    if images.dtype != np.uint8 and np.abs(images).max() <= 1:
        warnings.warn(
            "No value of these images is above 1. The model scales RGB 0..255 by "
            "itself: pass images as they are read.",
            stacklevel=3,
        )
    return images


def fit_images(images, resolution, fit):
    """Images (N, H, W, 3) as (N, r, r, 3), antialiased.

    Bilinear weights as in PIL and `tf.image.resize(antialias=True)`, but as two matrix
    products: these run on every backend, in one graph for images of every size, and
    under XLA, which has no kernel for TensorFlow's op.

    Args:
        images: RGB 0..255, uint8 or float. Images that are r x r are returned as they
            are, others are rounded to whole grey levels, as the data pipeline does.
        resolution: r, int.
        fit: "crop" (shorter side to int(r / 0.875), then the centre) or "squash".
    """
    _check_fit(fit)
    images = check_images(images)
    height, width = ops.shape(images)[1:3]
    static = isinstance(height, int) and isinstance(width, int)
    if static and (height, width) == (resolution, resolution):
        return images
    # Sizes that are known are computed with numpy, in double precision.
    lib, dtype = (np, "float64") if static else (ops, "float32")
    native = lib.logical_and(
        lib.equal(height, resolution), lib.equal(width, resolution)
    )
    target = (resolution, resolution)
    if fit == "crop":
        target = resolutions_lib.validation_size(
            height, width, resolution, minimum=lib.minimum
        )
        # A batch that turns out to be r x r stays as it is.
        target = [lib.where(native, resolution, side) for side in target]
    rows, columns = (
        _bilinear(size, side, resolution, lib, dtype)
        for size, side in zip((height, width), target, strict=True)
    )
    x = ops.cast(images, "float32")
    y = ops.einsum("oh,nhwc->nowc", ops.cast(rows, "float32"), x)
    y = ops.einsum("pw,nowc->nopc", ops.cast(columns, "float32"), y)
    rounded = ops.clip(ops.round(y), 0, 255)
    return rounded if static else ops.where(native, y, rounded)


def _bilinear(size, target, resolution, lib, dtype):
    """Weights (r, size): a side resized to `target`, of which the centre r are kept.

    A triangle as wide as the step between output pixels, cut at the border.
    """
    size, target = lib.array(size, dtype), lib.array(target, dtype)
    step = size / target
    # Halves go to even, in numpy and in keras.ops as in `centre_offset`.
    offset = lib.round((target - resolution) / 2)
    centres = (offset + lib.arange(resolution, dtype=dtype) + 0.5) * step
    pixels = lib.arange(size, dtype=dtype) + 0.5
    distance = lib.abs(pixels[None, :] - centres[:, None]) / lib.maximum(step, 1)
    weights = lib.maximum(1 - distance, 0)
    return weights / lib.sum(weights, axis=1, keepdims=True)


def _check_fit(fit):
    if fit not in FITS:
        raise ValueError(f"`fit` must be one of {FITS}. Received: fit={fit!r}")


class Predictors:
    """One compiled predict function for each (resolution, fit), built on demand.

    A plain object, not a dict of models, so that Keras does not track the predictors
    as layers of the classifier they belong to.
    """

    def __init__(self, classifier):
        self._classifier = classifier
        self._models = {}

    def get(self, resolution, fit):
        _check_fit(fit)
        key = (resolution, fit)
        if key not in self._models:
            self._models[key] = _Predictor(self._classifier, resolution, fit)
        return self._models[key]


class _Predictor(keras.Model):
    """Resizes and classifies at one fixed resolution."""

    def __init__(self, classifier, resolution, fit):
        super().__init__(name=f"{classifier.name}_{resolution}")
        self.classifier = classifier
        self.resolution = resolution
        self.fit_mode = fit
        self.built = True
        # On TensorFlow a graph serves every image size; XLA would compile each anew.
        self.jit_compile = keras.backend.backend() != "tensorflow"

    def call(self, x):
        x = fit_images(x, self.resolution, self.fit_mode)
        return self.classifier(x, resolution=self.resolution, training=False)

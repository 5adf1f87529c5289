"""From images of any size to the r x r images of one resolution, with keras.ops.

The arithmetic is that of the data pipeline's validation transform, so that predicting
raw validation images equals evaluating them.
"""

import keras
import numpy as np
from keras import ops

from rs_keras import resolutions as resolutions_lib

FITS = ("crop", "squash")


def check_images(images):
    """Returns the images as given; raises ValueError unless they are RGB 0..255 NHWC.

    Datasets and other iterables pass: their batches are checked as they come.
    """
    if isinstance(images, (list, tuple)):
        images = np.asarray(images)
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        return images
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "`images` must have the shape (N, H, W, 3), RGB 0..255. "
            f"Received: shape={shape}"
        )
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(
            "`images` must be uint8 or float, with values 0..255. "
            f"Received: dtype={dtype}"
        )
    return images


def fit_images(images, resolution, fit):
    """Images (N, H, W, 3) as (N, r, r, 3), antialiased.

    Args:
        images: RGB 0..255, uint8 or float. Images that are r x r are returned as they
            are, others are rounded to whole grey levels, as the data pipeline does.
        resolution: r, int.
        fit: "crop" (shorter side to int(r / 0.875), then the centre) or "squash".
    """
    if fit not in FITS:
        raise ValueError(f"`fit` must be one of {FITS}. Received: fit={fit!r}")
    height, width = images.shape[1:3]
    if (height, width) == (resolution, resolution):
        return images
    if height is None or width is None:
        raise ValueError(
            "Batches to be resized need a known height and width. "
            f"Received: shape={tuple(images.shape)}"
        )
    target = (resolution, resolution)
    if fit == "crop":
        target = resolutions_lib.validation_size(height, width, resolution)
    x = ops.image.resize(
        ops.cast(images, "float32"),
        target,
        interpolation="bilinear",
        antialias=True,
        data_format="channels_last",
    )
    top, left = (resolutions_lib.centre_offset(n, resolution) for n in target)
    x = x[:, top : top + resolution, left : left + resolution]
    return ops.clip(ops.round(x), 0, 255)


class Predictors:
    """One compiled predict function for each (resolution, fit), built on demand.

    A plain object, not a dict of models, so that Keras does not track the predictors
    as layers of the classifier they belong to.
    """

    def __init__(self, classifier):
        self._classifier = classifier
        self._models = {}

    def get(self, resolution, fit):
        if fit not in FITS:
            raise ValueError(f"`fit` must be one of {FITS}. Received: fit={fit!r}")
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

    def call(self, x):
        x = fit_images(x, self.resolution, self.fit_mode)
        return self.classifier(x, resolution=self.resolution, training=False)

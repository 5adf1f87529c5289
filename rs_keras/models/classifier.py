"""An image classifier whose speed is chosen at run time by the input resolution."""

import keras
from keras import ops

from rs_keras import resolutions as resolutions_lib
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization
from rs_keras.models import ends
from rs_keras.models import preprocessing
from rs_keras.training import trainer


@keras.saving.register_keras_serializable(package="rs_keras")
class Classifier(trainer.MultiResolutionTrainer, keras.Model):
    """Backbone, global average pooling and a dense head, shared by all resolutions.

    The model takes RGB images 0..255, NHWC, uint8 or float, and scales them itself.

    Args:
        blocks: list of layers called as `block(x, resolution=..., training=...)`,
            (N, H, W, 3) -> (N, h, w, C), or (N, C), which is not pooled.
        head: dense layer; its units are the number of classes.
        resolutions: distinct positive ints; kept in descending order.
        views: number of branches at a single resolution (RS-Nets, Table 6).
        scaling: "unit" for x / 255 (the RS-Nets reference), "imagenet" for
            ImageNet's mean and standard deviation, "none" where a block does it.
        rest_bits: bits of the image, the pooled features and the logits, 8, or 32 for
            none. The blocks and the head bring their own quantizers.
        class_names: names of the classes, or None.
        minimum_resolution: the smallest image side that the backbone accepts.
        added_resolutions: {resolution: how its row was made}, for those that were not
            trained; see `rs_keras.add_resolution`.

    Call arguments:
        x: (N, H, W, 3), used at its own size; or {branch key: (N, r, r, 3)}.
        resolution: selects the batch normalization: an int, a scalar tensor, or None
            for the largest. Not with a dict.
        training: see `SwitchableBatchNormalization`.

    Returns:
        Logits (N, num_classes); for a dict {branch key: logits}.

    Raises:
        ValueError: see the message; each names what was received.
    """

    def __init__(
        self,
        blocks,
        head,
        resolutions,
        *,
        views=1,
        scaling="unit",
        rest_bits=32,
        class_names=None,
        minimum_resolution=32,
        added_resolutions=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.resolutions = resolutions_lib.check_resolutions(resolutions, views=views)
        if scaling not in ends.SCALINGS:
            raise ValueError(
                f"`scaling` must be one of {ends.SCALINGS}. "
                f"Received: scaling={scaling!r}"
            )
        if self.resolutions[-1] < minimum_resolution:
            raise ValueError(
                f"`resolutions` must be at least {minimum_resolution} for this "
                f"network. Received: resolutions={resolutions!r}"
            )
        self.views = views
        self.keys = resolutions_lib.branch_keys(self.resolutions, views)
        self.num_classes = head.units
        self.scaling = scaling
        self.rest_bits = rest_bits
        self.minimum_resolution = minimum_resolution
        # A configuration is JSON, whose keys are strings.
        self.added_resolutions = {
            int(r): dict(how) for r, how in (added_resolutions or {}).items()
        }
        self.class_names = _checked_class_names(class_names, head.units)

        # The model's policy, not the global one: a reloaded model keeps its precision.
        self.rescaling = ends.rescaling(scaling, self.dtype_policy)
        self.blocks = list(blocks)
        self.pool = keras.layers.GlobalAveragePooling2D(
            name="pool", dtype=self.dtype_policy
        )
        self.head = head
        self.ranges = ends.ranges(rest_bits, scaling)
        self.build((None, None, None, 3))
        self._predictors = preprocessing.Predictors(self)

    def build(self, input_shape):
        if self.built:
            return
        shape = (None, None, None, 3)
        self.rescaling.build(shape)
        for block in self.blocks:
            conv_bn.build_once(block, shape)
            shape = block.compute_output_shape(shape)
        if len(shape) == 4:
            self.pool.build(shape)
        conv_bn.build_once(self.head, (None, shape[-1]))
        for quantizer in self.ranges.values():
            quantizer.build(None)
        self.add_training_state()
        self.built = True

    def call(self, x, resolution=None, training=None):
        if isinstance(x, dict):
            if resolution is not None:
                raise ValueError(
                    "A dict of images brings its own resolutions. "
                    f"Received: resolution={resolution!r}, keys={tuple(x)}"
                )
            # In the order of the rows: JAX sorts the keys of a dict, and a batch
            # normalization shared by all is updated by one after the other.
            order = [key for key in self.keys if key in x]
            order += [key for key in x if key not in self.keys]
            return {key: self._logits(x[key], key, training) for key in order}
        return self._logits(x, resolution, training)

    def compute_output_shape(self, input_shape):
        if isinstance(input_shape, dict):
            return {k: (v[0], self.num_classes) for k, v in input_shape.items()}
        return (input_shape[0], self.num_classes)

    def predict(
        self,
        x,
        batch_size=None,
        verbose="auto",
        steps=None,
        callbacks=None,
        *,
        resolution=None,
        fit="crop",
    ):
        """Logits of images of any size, computed at one resolution.

        Args:
            x: images (N, H, W, 3), RGB 0..255, uint8 or float, of any size; or a
                dataset of such batches.
            resolution: positive int, also one between the trained ones; None for the
                largest. Of several views the first predicts.
            fit: "crop" resizes the shorter side to `int(resolution / 0.875)` and takes
                the centre (the validation transform of --preprocessing=rsnet:
                predicting raw validation images equals `evaluate`); "squash" resizes to
                a square. Both antialias; an image that is resolution x resolution
                already is taken as it is.

        Returns:
            Logits, numpy (N, num_classes).

        Raises:
            ValueError: wrong `resolution`, `fit`, rank, channels or dtype.
        """
        resolution = self.check_resolution(resolution)
        predictor = self._predictors.get(resolution, fit)
        return predictor.predict(
            preprocessing.check_batch(x),
            batch_size=batch_size,
            verbose=verbose,
            steps=steps,
            callbacks=callbacks,
        )

    def save(self, filepath, *args, **kwargs):
        """`keras.Model.save` to a .keras file, the only format with our classes."""
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                f"`filepath` must end in .keras. Received: filepath={filepath}"
            )
        super().save(filepath, *args, **kwargs)

    def check_resolution(self, resolution):
        """The resolution as an int; None is the largest. ValueError if too small."""
        if resolution is None:
            return self.resolutions[0]
        if not resolutions_lib.is_integer(resolution) or (
            resolution < self.minimum_resolution
        ):
            raise ValueError(
                "`resolution` must be an integer of at least "
                f"{self.minimum_resolution}, or None for the largest. "
                f"Received: resolution={resolution!r}"
            )
        return int(resolution)

    def branch_images(self, images, fit):
        """{branch key: images at its resolution} of one batch (N, H, W, 3)."""
        sides = self.resolutions * self.views
        return {
            key: preprocessing.fit_images(images, side, fit)
            for key, side in zip(self.keys, sides, strict=True)
        }

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "blocks": keras.saving.serialize_keras_object(self.blocks),
            "head": keras.saving.serialize_keras_object(self.head),
            "resolutions": self.resolutions,
            "views": self.views,
            "scaling": self.scaling,
            "rest_bits": self.rest_bits,
            "class_names": self.class_names,
            "minimum_resolution": self.minimum_resolution,
            "added_resolutions": {str(r): v for r, v in self.added_resolutions.items()},
        }

    @classmethod
    def from_config(cls, config):
        if config.get("rest_bits", quantization.FLOAT_BITS) != quantization.FLOAT_BITS:
            quantization.tfmot_bridge()  # registers its layers
        layers = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("blocks", "head")
        }
        return cls(**{**config, **layers})

    def features(self, images, resolution=None, training=None):
        """What the head is given, (N, C): the pooled output of the blocks.

        Args:
            images: (N, H, W, 3), used at their own size.
            resolution, training: as for a call.
        """
        preprocessing.check_images(images)
        x = self._rounded("image", self.rescaling(images))
        for block in self.blocks:
            x = block(x, resolution=resolution, training=training)
        if len(x.shape) == 4:
            x = self.pool(x)  # (N, h, w, C) -> (N, C)
        return self._rounded("pool", x, training)

    def _logits(self, images, resolution, training):
        x = self.features(images, resolution, training)
        logits = self._rounded("logits", self.head(x), training)
        # Losses and accuracies need more than half precision.
        return ops.cast(logits, self.variable_dtype)

    def _rounded(self, place, x, training=False):
        if not self.ranges:
            return x
        return self.ranges[place](x, update="fit" if training else None)


def _checked_class_names(class_names, num_classes):
    if class_names is None:
        return None
    class_names = [str(name) for name in class_names]
    if len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must have one name for each of the {num_classes} classes. "
            f"Received: {len(class_names)} names"
        )
    return class_names

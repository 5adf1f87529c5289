"""One training step as arrays, on either backend."""

import numpy as np


def batch(model, count=6):
    """({key: uint8 images}, labels), other images for every key."""
    generator = np.random.default_rng(0)
    sides = model.resolutions * model.views
    images = {
        key: generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        for key, side in zip(model.keys, sides, strict=True)
    }
    return images, generator.integers(0, model.num_classes, count)


def small(bits=(32, 32), quantizer_options=None):
    """A `Classifier` of two convolutions, for (48, 32)."""
    import keras

    from rs_keras.layers import conv_bn
    from rs_keras.layers import quantization
    from rs_keras.models import classifier
    from rs_keras.models import resnet

    keras.utils.set_random_seed(0)
    resolutions = (48, 32)
    options = {
        "norm": resnet.norm_factory(resolutions, 1, False, None),
        "low_bit": quantization.quantization(
            resolutions, 1, *bits, **(quantizer_options or {})
        ),
    }
    blocks = [
        conv_bn.conv_bn(
            8,
            3,
            2,
            **options,
            name=name,
            norm_name=f"{name}_norm",
            activation="relu",
            output_name=f"{name}.quant",
        )
        for name in ("first", "second")
    ]
    head = keras.layers.Dense(6, name="head")
    return classifier.Classifier(blocks, head, resolutions, name="small")


def taken(model, x, y):
    """(logs, gradients, state) of one `train_on_batch`.

    The gradients are the velocities of the fresh optimizer, `0.9 * 0 + gradient`.
    """
    logs = model.train_on_batch(x, y, return_dict=True)
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    pairs = zip(model.trainable_variables, optimizer.velocities, strict=True)
    return logs, {v.path: np.array(g) for v, g in pairs}, state(model)


def state(model):
    """{path: value} of every variable of the model and its optimizer."""
    return {v.path: np.array(v) for v in [*model.weights, *model.optimizer.variables]}


def difference(found, expected):
    """The norm of the difference over the norm of what is expected."""
    found, expected = (np.asarray(v, np.float64) for v in (found, expected))
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)

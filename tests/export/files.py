"""Small .tflite files, as TensorFlow's converter writes them, and running any file."""

import types

import numpy as np
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from rs_keras.export import tflite


def convert(functions):
    """The bytes of a file of {signature: (function of `image`, its shape)}."""

    def trace(key, function, shape):
        def named(image):
            return function(image)

        named.__name__ = key
        image = tf.TensorSpec(shape, "float32", name="image")
        return tf.function(named).get_concrete_function(image)

    traced = {key: trace(key, *entry) for key, entry in functions.items()}
    return tflite.stock(types.SimpleNamespace(variables=[]), traced)


def calibrated(model, layout, precision, batch):
    """`tflite.convert`, with images for integers."""
    images = {r: batch(24, r, seed=5)[0] for r in model.resolutions}
    return tflite.convert(model, layout, precision, calibration=images)


def run(data, key, images):
    """{output: float array} of a signature, the images one after the other."""
    signature = litert.Interpreter(model_content=data).get_signature_runner(key)
    if signature.get_input_details()["image"]["quantization"][0]:
        images = images.astype("uint8")
    # A copy: LiteRT reuses the memory of its outputs.
    found = [
        {k: np.array(v) for k, v in signature(image=image[None]).items()}
        for image in images
    ]
    found = {k: np.concatenate([row[k] for row in found]) for k in found[0]}
    for name, details in signature.get_output_details().items():
        scale, zero_point = details["quantization"]
        if scale:
            found[name] = scale * (found[name].astype("float32") - zero_point)
    return found

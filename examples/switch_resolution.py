"""One trained network, its speed chosen call by call.

    python examples/switch_resolution.py --model=runs/quickstart/model.keras

Classifies generated images at each trained resolution and at one in between, and
prints how many are right and how long an image takes.
"""

import argparse
import os
import time

import keras
import numpy as np

import rs_keras  # noqa: F401 - registers the network's classes with Keras
from rs_keras.data import shapes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="runs/quickstart/model.keras")
    path = parser.parse_args().model
    if not os.path.exists(path):
        parser.error(f"--model must be a .keras file. Received: {path}")
    model = keras.saving.load_model(path)
    if model.class_names != list(shapes.CLASS_NAMES):
        parser.error(f"--model must be trained on shapes. Received: {path}")
    images, labels = shapes.generate("val", stop=512)

    between = (model.resolutions[0] + model.resolutions[1]) // 2
    for resolution in sorted({*model.resolutions, between}, reverse=True):
        model.predict(images, resolution=resolution, verbose=0)  # builds its graph
        seconds = []
        for _ in range(3):  # the best of three: others may use the machine, too
            start = time.perf_counter()
            logits = model.predict(images, resolution=resolution, verbose=0)
            seconds.append(time.perf_counter() - start)
        right = np.mean(np.argmax(logits, axis=-1) == labels)
        print(
            f"model.predict(images, resolution={resolution}): {right:.1%} right, "
            f"{1000 * min(seconds) / len(images):.2f} ms an image"
        )


if __name__ == "__main__":
    main()

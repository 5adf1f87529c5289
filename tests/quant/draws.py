"""The tensors of golden/README.md, section 3, "LQ quantisers"."""

import numpy as np

FILES = {"weights": "weight", "activations": "activ"}


def weights(step):
    """The kernel of training call `step`, counted from 1: (3, 3, 16, 32)."""
    generator = np.random.default_rng(500 + step - 1)
    scale = np.sqrt(2 / (9 * 32)) * np.linspace(0.5, 1.5, 32)
    return (generator.standard_normal((3, 3, 16, 32)) * scale).astype("float32")


def activations(bits, step):
    """The activations of training call `step`: (4, 8, 8, 16), not negative."""
    generator = np.random.default_rng(600 + 10 * bits + step - 1)
    x = generator.standard_normal((4, 8, 8, 16)) * (1 + 0.1 * (step - 1))
    return np.maximum(x, 0).astype("float32")

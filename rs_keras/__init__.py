"""Image networks whose speed is chosen at run time by the input resolution.

Public names resolve lazily (PEP 562): importing this package imports neither keras
nor tensorflow, so a command line can refuse a wrong flag without their start-up time.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "resnet18": "rs_keras.models.resnet",
    "resnet34": "rs_keras.models.resnet",
    "resnet50": "rs_keras.models.resnet",
    "resnet101": "rs_keras.models.resnet",
    "mobilenet_v2": "rs_keras.models.mobilenet_v2",
    "Classifier": "rs_keras.models.classifier",
    "SwitchableBatchNormalization": "rs_keras.layers.switchable_norm",
    "MultiResolutionDistillation": "rs_keras.losses.distillation",
    "SGD": "rs_keras.training.optimizers",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rs_keras' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))

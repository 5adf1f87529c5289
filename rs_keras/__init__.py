"""Image networks whose speed is chosen at run time by the input resolution.

Public names resolve lazily (PEP 562): importing this package imports neither keras
nor tensorflow, so a command line can refuse a wrong flag without their start-up time.
"""

import importlib
import importlib.util
import sys

__version__ = "0.1.0"

_PUBLIC = {
    "resnet18": "rs_keras.models.resnet",
    "resnet34": "rs_keras.models.resnet",
    "resnet50": "rs_keras.models.resnet",
    "resnet101": "rs_keras.models.resnet",
    "mobilenet_v2": "rs_keras.models.mobilenet_v2",
    "Classifier": "rs_keras.models.classifier",
    "make_switchable": "rs_keras.models.switchable",
    "SwitchableBatchNormalization": "rs_keras.layers.switchable_norm",
    "MultiResolutionDistillation": "rs_keras.losses.distillation",
    "SGD": "rs_keras.training.optimizers",
}

# They register nothing, so that only who calls them waits for the import.
_FUNCTIONS = {
    "add_resolution": "rs_keras.evaluation.calibration",
    "load_packed": "rs_keras.checkpoints.packed",
}

__all__ = sorted([*_PUBLIC, *_FUNCTIONS])


def __getattr__(name):
    if name == "checkpoints":
        for module in ("torch_import", "lqnet_import"):
            importlib.import_module(f"{__name__}.{name}.{module}")
        return sys.modules[f"{__name__}.{name}"]
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rs_keras' has no attribute {name!r}")
    _resolve_all()
    return globals()[name]


def __dir__():
    return sorted(set(globals()) | set(__all__))


def _resolve_all():
    """Imports every public class, which registers it with Keras."""
    for name, module in _PUBLIC.items():
        globals()[name] = getattr(importlib.import_module(module), name)


class _RegisterAfterKeras:
    """Import hook: once keras has been imported, our classes are registered with it.

    So `import rs_keras` is enough for `keras.saving.load_model`, in whichever order
    the two are imported. Where it is one of the modules with our classes that imports
    keras, they are half executed then, and it is they who register.
    """

    _searching = False

    def find_spec(self, name, path=None, target=None):
        if name != "keras" or self._searching:
            return None
        self._searching = True
        spec = importlib.util.find_spec(name)
        self._searching = False
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                sys.meta_path.remove(self)
                execute(module)
                if not any(map(_half_imported, _ROOMS)):
                    _resolve_all()

            spec.loader.exec_module = execute_and_register
        return spec


_ROOMS = {module.rpartition(".")[0] for module in _PUBLIC.values()}


def _half_imported(room):
    return any(
        name.startswith(f"{room}.") and getattr(module.__spec__, "_initializing", False)
        for name, module in list(sys.modules.items())
    )


if "keras" in sys.modules:
    _resolve_all()
else:
    sys.meta_path.insert(0, _RegisterAfterKeras())

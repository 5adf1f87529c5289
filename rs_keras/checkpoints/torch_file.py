"""Arrays from and to the files of PyTorch: .pth, and .safetensors."""

import importlib
import pathlib
import pickle
import zipfile

from rs_keras import workdir
from rs_keras.checkpoints import archives

SUFFIXES = (".pth", ".pt", ".safetensors")
# Under which training scripts keep the weights beside their own notes.
_PLACES = ("state_dict", "model", "model_state_dict", "state_dict_ema")
# What wrappers of a network put before every key.
_PREFIXES = ("module.", "_orig_mod.")
# What damaged pickles end in, beside their own error.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
)


def read(path):
    """The state dict in a file, as {key: numpy array}.

    Of a .pth file nothing is executed (`weights_only=True`). Weights may lie under
    "state_dict" or "model" there, and all keys may have the prefix of DataParallel.

    Raises:
        ValueError: the file is missing or none of these, or PyTorch is.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    if not path.is_file():
        raise ValueError(f"A file with a state dict is needed. Received: {path}")
    found = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    prefixes = list(_PREFIXES)
    while prefixes:
        prefix = prefixes.pop()
        if found and all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): array for key, array in found.items()}
            prefixes = list(_PREFIXES)
    return found


def write(path, arrays):
    """Writes a state dict, {key: numpy array}, whole or not at all."""
    path = pathlib.Path(path)
    check_suffix(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if _is_safetensors(path):
            library = _library("safetensors.numpy", "safetensors")
            library.save_file(arrays, temporary)
        else:
            torch = _library("torch", "PyTorch")
            tensors = {key: torch.tensor(array) for key, array in arrays.items()}
            torch.save(tensors, temporary)
        workdir.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_suffix(path):
    """Raises ValueError for a file of another kind."""
    if pathlib.Path(path).suffix not in SUFFIXES:
        raise ValueError(
            f"The file must be one of {', '.join(SUFFIXES)}. Received: {path}"
        )


def _is_safetensors(path):
    return path.suffix == ".safetensors"


def _read_safetensors(path):
    library = _library("safetensors.numpy", "safetensors")
    import safetensors

    try:
        found = library.load_file(path)
    except (safetensors.SafetensorError, *_PICKLE_ERRORS) as error:
        raise _unreadable(path, error) from error
    floats = {key: array.dtype.kind == "f" for key, array in found.items()}
    return {k: v.astype("float32") if floats[k] else v for k, v in found.items()}


def _read_torch(path):
    torch = _library("torch", "PyTorch")
    if zipfile.is_zipfile(path):
        archives.check_expansion(path, ".pth")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (*_PICKLE_ERRORS, RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from error
    for place in _PLACES:
        if isinstance(found, dict) and isinstance(found.get(place), dict):
            found = found[place]
    if not isinstance(found, dict) or not found:
        raise _unreadable(path, f"which holds a {type(found).__name__}")
    wrong = [key for key, value in found.items() if not torch.is_tensor(value)]
    if wrong or not all(isinstance(key, str) for key in found):
        raise _unreadable(path, f"where {wrong[:1] or 'a key'} is no tensor")
    try:
        return {
            key: (value.detach().float() if value.is_floating_point() else value)
            .resolve_conj()
            .numpy()
            for key, value in found.items()
        }
    except (RuntimeError, TypeError) as error:  # sparse, quantized, without values
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    """One sentence for what may end in a dozen ways."""
    reason = "which is damaged, or another kind of file"
    if isinstance(error, str):
        reason = error
    elif "Weights only" in str(error):
        reason = (
            "which has other objects: PyTorch would have to execute code to read them "
            "(save model.state_dict())"
        )
    return ValueError(
        "The file must hold a state dict: tensors by name, and nothing else. "
        f"Received: {path}, {reason}"
    )


def _library(module, name):
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"This file needs {name}: `pip install {module.partition('.')[0]}`. "
            f"Received: no {error.name}"
        ) from error

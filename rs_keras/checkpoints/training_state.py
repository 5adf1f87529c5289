"""Checkpoints of a training run: arrays and a JSON manifest, on any Keras backend.

A checkpoint is a directory `checkpoints/epoch-0007` with `arrays.npz` (every variable
of the model and the optimizer, under its path) and `manifest.json` (epoch, step, and
the sha256 of the arrays). It is written under a temporary name and renamed.
"""

import hashlib
import json
import os
import pathlib
import shutil

import numpy as np

FORMAT = 1
KEPT = 3


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not as it was written."""


def save(directory, model, *, epoch, step, data):
    """Writes the state after `epoch` (counted from 1) and removes the oldest.

    Args:
        directory: the run's `checkpoints` directory.
        model: compiled model whose optimizer is built.
        epoch, step: how far training has come.
        data: what a run must find again to go on, as JSON: the classes, the number of
            images and of steps.

    Returns:
        Path of the checkpoint.
    """
    directory = pathlib.Path(directory)
    final = directory / f"epoch-{epoch:04d}"
    temporary = directory / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    arrays = {name: np.asarray(v) for name, v in _variables(model).items()}
    with open(temporary / "arrays.npz", "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    manifest = {
        "format": FORMAT,
        "epoch": epoch,
        "step": step,
        "data": data,
        "sha256": _digest(temporary / "arrays.npz"),
    }
    with open(temporary / "manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    for old in list_checkpoints(directory)[:-KEPT]:
        shutil.rmtree(old)
    return final


def list_checkpoints(directory):
    """The checkpoints of a directory, oldest first."""
    found = pathlib.Path(directory).glob("epoch-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("epoch-")))


def restore(path, model):
    """Sets every variable of the model and its optimizer; returns the manifest.

    Raises:
        DamagedCheckpoint: it is not as it was written.
        ValueError: it belongs to another network, or to a newer format.
    """
    path = pathlib.Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        damaged = manifest["sha256"] != _digest(path / "arrays.npz")
    except (OSError, ValueError, KeyError):
        damaged = True
    if damaged:
        raise DamagedCheckpoint(f"The checkpoint is damaged. Received: {path}")
    if manifest["format"] != FORMAT:
        raise ValueError(
            f"Checkpoints of format {FORMAT} can be read. "
            f"Received: {path} of format {manifest['format']}"
        )
    variables = _variables(model)
    with np.load(path / "arrays.npz", allow_pickle=False) as arrays:
        if set(arrays.files) != set(variables):
            raise ValueError(
                f"The checkpoint belongs to another network. Received: {path}"
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])
    return manifest


def _variables(model):
    variables = {}
    for variable in (*model.variables, *model.optimizer.variables):
        if variable.path in variables:
            raise ValueError(f"Two variables share one path. Received: {variable.path}")
        variables[variable.path] = variable
    return variables


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Checkpoints of a training run: arrays and a JSON manifest, on any Keras backend.

A checkpoint is a directory with `arrays.npz` (every variable of the model, its metrics
and the optimizer, under its path) and `manifest.json` (how far training has come, and
checksums of both files). `epoch-0007` is the state after the seventh epoch and its
validation, `epoch-0007-step-000120` that after 120 steps of the seventh epoch.

A checkpoint is written under a temporary name, flushed to the disk and renamed:
whatever ends the process, a directory of that name is whole.
"""

import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import typing

import numpy as np

from rs_keras import workdir

FORMAT = 2
KEPT = 3


class Position(typing.NamedTuple):
    """How far training has come: `epoch` finished ones, and `step` steps of the next.

    A step equal to the steps of an epoch: its validation is still to come.
    """

    epoch: int = 0
    step: int = 0


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not as it was written."""


def arrays(model, read=None):
    """{path: array} of every variable of a model, its metrics and its optimizer.

    Args:
        model: compiled model whose optimizer is built.
        read: function of a list of variables that returns their values, where several
            devices have them.

    Raises:
        FloatingPointError: one has numbers that are not finite.
    """
    variables = _variables(model)
    values = read(list(variables.values())) if read else variables.values()
    found = {p: np.asarray(v) for p, v in zip(variables, values, strict=True)}
    for path, array in found.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FloatingPointError(
                f"A checkpoint must hold finite numbers. Received: {path} is not finite"
            )
    return found


def save(directory, arrays, position, *, data, score=None):
    """Writes the state and removes what is neither among the last three nor the best.

    Args:
        directory: the run's `checkpoints` directory.
        arrays: what `arrays` returned.
        position: `Position`.
        data: what else a run must find again to go on, as JSON.
        score: how good the state is, the more the better; None if nobody has looked.

    Returns:
        Path of the checkpoint.

    Raises:
        OSError: it cannot be written; nothing of it is left, and the others are there.
    """
    directory = pathlib.Path(directory)
    final = directory / name(position)
    temporary = directory / f".{final.name}.tmp"
    for old in directory.glob(".*.tmp"):  # of a process that was killed
        shutil.rmtree(old)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, arrays, {**position._asdict(), "data": data, "score": score})
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if final.exists():
        _remove(final)
    os.replace(temporary, final)
    _flush(directory)
    kept = list_checkpoints(directory)[-KEPT:]
    kept.append(best(directory))
    for path in list_checkpoints(directory):
        if path not in kept:
            _remove(path)
    return final


def name(position):
    """The name of the checkpoint of a `Position`."""
    if position.step == 0:
        return f"epoch-{position.epoch:04d}"
    return f"epoch-{position.epoch + 1:04d}-step-{position.step:06d}"


def list_checkpoints(directory):
    """The checkpoints of a directory, oldest first."""
    found = [
        (position, path)
        for path in pathlib.Path(directory).glob("epoch-*")
        if (position := _position(path.name))
    ]
    return [path for _, path in sorted(found)]


def how_to_go_on(directory):
    """What the command of a run would do again, as a sentence."""
    kept = list_checkpoints(directory)
    if not kept:
        return "Nothing is saved yet: the same command starts from the beginning."
    return f"The same command goes on from {kept[-1].name}."


def best(directory):
    """The checkpoint with the highest score, of equal ones the oldest; None if none."""
    scores = {}
    for path in list_checkpoints(directory):
        try:
            score = json.loads((path / "manifest.json").read_text())["score"]
        # Not of other errors: what cannot be read just now may be the best.
        except (FileNotFoundError, ValueError, KeyError):
            continue
        if isinstance(score, (int, float)) and math.isfinite(score):
            scores[path] = score
    return max(scores, key=scores.get, default=None)


def read(path):
    """The arrays {variable path: array} and the manifest of a checkpoint.

    Raises:
        DamagedCheckpoint: it is not as it was written.
        OSError: it cannot be read; nothing is said of what it is like.
        ValueError: it is of another format.
    """
    path = pathlib.Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        checksum = manifest.pop("sha256")
        damaged = checksum != _digest_of(manifest)
        if not damaged and manifest["format"] == FORMAT:
            damaged = manifest["arrays_sha256"] != _digest(path / "arrays.npz")
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):
        damaged = True
    if damaged:
        raise DamagedCheckpoint(f"The checkpoint is damaged. Received: {path}")
    if manifest["format"] != FORMAT:
        raise ValueError(
            f"Checkpoints of format {FORMAT} can be read. "
            f"Received: {path} of format {manifest['format']}"
        )
    with np.load(path / "arrays.npz", allow_pickle=False) as arrays:
        return dict(arrays), manifest


def restore(path, model, contents=None):
    """Sets every variable of the model, its metrics and its optimizer.

    Args:
        contents: what `read` returned for the path, where that was called before.

    Returns:
        The manifest: {"epoch", "step", "data", "score", …}.

    Raises:
        DamagedCheckpoint: it is not as it was written.
        ValueError: it belongs to another network, or is of another format.
    """
    arrays, manifest = contents or read(path)
    variables = _variables(model)
    if set(arrays) != set(variables) or any(
        arrays[path].shape != tuple(v.shape) for path, v in variables.items()
    ):
        raise ValueError(f"The checkpoint belongs to another network. Received: {path}")
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return manifest


def set_aside(path):
    """Renames a damaged checkpoint, so that it is no longer found."""
    path = pathlib.Path(path)
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    return aside


def _position(name):
    match = re.fullmatch(r"epoch-(\d+)(?:-step-(\d+))?", name)
    if match is None:
        return None
    epoch, step = match.groups()
    return Position(int(epoch)) if step is None else Position(int(epoch) - 1, int(step))


def _write(directory, arrays, state):
    with open(directory / "arrays.npz", "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    manifest = {
        "format": FORMAT,
        **state,
        "arrays_sha256": _digest(directory / "arrays.npz"),
    }
    text = json.dumps({**manifest, "sha256": _digest_of(manifest)})
    workdir.write_text(directory / "manifest.json", text)
    _flush(directory)


def _remove(path):
    """Removes a checkpoint: first its name, so that no half of it is ever found."""
    gone = path.with_name(f".{path.name}.gone.tmp")
    os.replace(path, gone)
    shutil.rmtree(gone)


def _flush(directory):
    """Writes the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _variables(model):
    variables = {}
    for variable in (
        *model.variables,
        *model.metrics_variables,
        *model.optimizer.variables,
    ):
        if variables.setdefault(variable.path, variable) is not variable:
            raise ValueError(f"Two variables share one path. Received: {variable.path}")
    return variables


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(manifest):
    text = json.dumps(manifest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

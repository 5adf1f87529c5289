"""Networks with quantized weights as small files: codes, bases, and rounded floats.

docs/packed_format.md says what is in a file, `packed_file` how it is checked.
"""

import concurrent.futures
import dataclasses
import math
import os
import pathlib

import keras
import numpy as np

from quant import packing
from rs_keras.checkpoints import packed_file
from rs_keras.checkpoints import packed_report
from rs_keras.layers import quantization
from rs_keras.models import classifier

RESTS = ("float32", "float16", "int8")
# The numbers of float16 that have all its digits.
_FLOAT16_RANGE = (2.0**-14, 65504.0)


def pack(model, path, rest="float32", training_state=False):
    """Writes a network with quantized weights to a .lq file, and reads it back.

    Quantized kernels become codes and bases; bases, ranges and alpha stay float32.

    Args:
        model: `Classifier` with quantized kernels, all its weights float32.
        path: the file; an existing one is replaced once the new one is whole.
        rest: the others: "float32"; "float16"; or "int8" for codes with a scale for
            each output channel of a kernel, float16 for whatever is no kernel. An array
            whose largest value float16 holds with fewer digits, or not, stays float32.
        training_state: keep what training needs to go on, all in float32: kernels
            instead of their codes, and the moving averages of the bases. The optimizer
            is in no .lq file.

    Returns:
        Dict of sizes and of rounding errors: `packed_report.report`.

    Raises:
        ValueError: the model has no quantized weights, or weights that are not finite
            or not float32; `rest` is unknown, or rounds a training state; the path is
            a directory, or in none.
    """
    path = pathlib.Path(path)
    packed_file.check_output(path)
    _check_options(rest, training_state)
    _check_model(model)
    entries = _entries(model, rest, training_state)
    blobs = [entry.encode() for entry in entries]
    network = keras.saving.serialize_keras_object(model)
    header = {
        "network": packed_file.without_state(network),
        "rest": rest,
        "training_state": bool(training_state),
        "arrays": [entry.row() for entry in entries],
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        try:
            overhead = packed_file.write(temporary, header, blobs)
        except packed_file.Refused as error:
            raise ValueError(f"{error}. Received: {model.name}") from error
        copy = load_packed(temporary)
        packed_report.check_kernels(model, copy)
        report = packed_report.report(model, copy, header["arrays"], overhead)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return report


def load_packed(path):
    """The network in a .lq file.

    It predicts and is saved as any other, and is compiled as a new one is. Without a
    training state its kernels are the levels, and the averages of its bases go on as if
    they had always been where they are.

    Returns:
        `Classifier`.

    Raises:
        ValueError: the file is damaged, of a newer format, or not one of ours.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"A packed network (.lq) is needed. Received: {path}")
    try:
        with open(path, "rb") as file:
            header = packed_file.read(file)
            # Keras keeps variables that nobody gave a value in a list of their thread,
            # to do so later: this thread ends.
            with concurrent.futures.ThreadPoolExecutor(1) as executor:
                executor.submit(_check_shapes, header).result()
            model = keras.saving.deserialize_keras_object(header["network"])
            entries = _entries(model, header["rest"], header["training_state"])
            for entry, row in zip(entries, header["arrays"], strict=True):
                entry.read(file, *row)
    except packed_file.Refused as error:
        raise ValueError(f"{error}. Received: {path}") from error
    except OSError:
        raise
    except Exception as error:  # whatever a configuration makes Keras raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"The network in the file cannot be rebuilt ({reason}). Received: {path}"
        ) from error
    if not header["training_state"]:
        for _, quantizer in packed_report.quantizers_of(model):
            quantizer.settle()
    return model


@dataclasses.dataclass
class _Entry:
    """An array of the file: its variable, and that of the basis that it brings."""

    variable: keras.Variable
    encoding: str
    channels: int = 0
    basis: keras.Variable | None = None

    def row(self):
        shape = [int(side) for side in self.variable.shape]
        name = packed_report.name_of(self.variable)
        return [name, shape, self.encoding, self.channels]

    def encode(self):
        array = np.array(self.variable)
        largest = np.abs(array).max()
        smallest_allowed, largest_allowed = _FLOAT16_RANGE
        if self.encoding == "float16" and largest:
            if not smallest_allowed <= largest <= largest_allowed:
                self.encoding = "float32"
        basis = None if self.basis is None else np.array(self.basis)[0]
        return packing.encode(array, self.encoding, self.channels, basis)

    def allows(self, row):
        exact = [*self.row()[:2], "float32", 0]
        return row == self.row() or (self.encoding == "float16" and row == exact)

    def read(self, file, name, shape, encoding, channels):
        size = packing.encoded_bytes(math.prod(shape), encoding, channels)
        array, basis = packing.decode(file.read(size), shape, encoding, channels)
        self.variable.assign(array)
        if basis is not None:
            self.basis.assign(basis[None])


def _entries(model, rest, training_state):
    """What is stored of a model, in the order of its weights."""
    if training_state:
        return [_Entry(weight, "float32") for weight in model.weights]
    ranges = filter(quantization.is_range, packed_report.layers_of(model))
    ranges = [*ranges, *model.ranges.values()]
    exact = {id(model.alpha), *(id(w) for layer in ranges for w in layer.weights)}
    special = {}
    for layer, quantizer in packed_report.quantizers_of(model):
        for weight in quantizer.weights:
            special[id(weight)] = None
        if layer is quantizer:
            special.pop(id(quantizer.basis))
            exact.add(id(quantizer.basis))
        else:
            channels = int(quantizer.basis.shape[-1])
            special[id(layer.kernel)] = _Entry(
                layer.kernel, f"lq{quantizer.bits}", channels, quantizer.basis
            )
    for layer in packed_report.layers_of(model):
        is_kernel = isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
        if rest == "int8" and is_kernel and id(layer.kernel) not in special:
            channels = int(layer.kernel.shape[-1])
            special[id(layer.kernel)] = _Entry(layer.kernel, "int8", channels)
    vectors = "float32" if rest == "float32" else "float16"
    entries = []
    for weight in model.weights:
        encoding = "float32" if id(weight) in exact else vectors
        entries.append(special.get(id(weight), _Entry(weight, encoding)))
    return [entry for entry in entries if entry is not None]


def _check_shapes(header):
    """Refuses arrays that are not the network's, before its variables have values."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(header["network"])
        entries = _entries(model, header["rest"], header["training_state"])
    rows = header["arrays"]
    fits = isinstance(model, classifier.Classifier) and header["rest"] in RESTS
    fits = fits and all(weight.dtype == "float32" for weight in model.weights)
    fits = fits and len(rows) == len(entries)
    if not fits or not all(map(_Entry.allows, entries, rows)):
        raise packed_file.Refused("The arrays must be those of the network")


def _check_options(rest, training_state):
    if rest not in RESTS:
        raise ValueError(f"`rest` must be one of {RESTS}. Received: rest={rest!r}")
    if training_state and rest != "float32":
        raise ValueError(
            "A training state keeps every weight as it is: it goes with rest=float32 "
            f"alone. Received: rest={rest}, training_state={training_state}"
        )


def _check_model(model):
    if not isinstance(model, classifier.Classifier):
        raise ValueError(
            "A rs_keras.Classifier is needed. "
            f"Received: model of type {type(model).__name__}"
        )
    if not any(map(quantization.is_quantized, packed_report.layers_of(model))):
        raise ValueError(
            "Packing needs a network with quantized weights. "
            f"Received: {model.name} with float weights"
        )
    for weight in model.weights:
        dtype = keras.backend.standardize_dtype(weight.dtype)
        if dtype != "float32" or not np.isfinite(np.array(weight)).all():
            raise ValueError(
                "Packing needs finite float32 weights. "
                f"Received: {weight.path}, {dtype}, with others among them"
            )

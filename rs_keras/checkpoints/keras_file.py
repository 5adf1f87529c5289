"""Finished models: read from a file, or used as the start of another run."""

import pathlib
import re
import zipfile

import keras
import numpy as np

from quant import quantizers
from rs_keras import workdir as workdir_lib
from rs_keras.checkpoints import archives
from rs_keras.checkpoints import packed
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization
from rs_keras.layers import switchable_norm
from rs_keras.models import classifier


def load(path):
    """The classifier in a workdir with a finished run, or in a .keras or .lq file.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / "model.keras"
    if not path.exists():
        raise ValueError(
            "A workdir with a finished run or a .keras or .lq file is needed. "
            f"Received: {path}"
        )
    if path.suffix == ".lq":
        return packed.load_packed(path)
    model = _read(path)
    if not isinstance(model, classifier.Classifier):
        raise ValueError(
            "The file must hold a rs_keras.Classifier. "
            f"Received: {path} with a {type(model).__name__}"
        )
    return model


def load_keras_model(path):
    """The Keras model in a .keras file, to be made switchable.

    Raises:
        ValueError: there is none, it cannot be read, or it is switchable already.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"A .keras file is needed. Received: {path}")
    model = _read(path, compile=False)  # with whatever loss
    if isinstance(model, classifier.Classifier):
        raise ValueError(
            "The file must hold a Keras model that is made switchable; what this "
            f"package has trained goes to --init_from. Received: {path}"
        )
    return model


def _read(path, **options):
    """What Keras reads from a .keras file; nothing in it is executed."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"The file must be a whole .keras file. Received: {path}")
    archives.check_expansion(path, ".keras")
    try:
        return keras.saving.load_model(path, **options)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Keras cannot read the file ({_reason(str(error))}). Received: {path}"
        ) from error


def save(model, path):
    """Writes a model to a .keras file, which is there whole or not at all."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.stem}.tmp.keras")
    try:
        model.save(temporary)
        workdir_lib.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(text):
    """What is wrong with a file, of a message of many lines."""
    if "`Lambda`" in text:
        return "it has a Lambda layer, whose code would have to be executed"
    match = re.search(r"Could not locate (?:class|function) '([^']+)'", text)
    if match:
        return f"it has a {match[1]}, which is not one of Keras' own"
    return text.split("\n")[0][:200]


def initialize_from(model, path):
    """Starts `model` from the weights of another run; returns what did not fit.

    Convolutions are copied. A row of batch normalization is what the other network
    would use at that resolution: its own row or the interpolated one. A head of
    another size, and alpha for another number of branches, keep their initial values.

    A quantized network may start from a float one: bases of weights are fitted to the
    kernels, bases of activations and normalizations that the float network does not
    have keep their initial values.

    Args:
        model: `Classifier`.
        path: workdir, or .keras or .lq file.

    Returns:
        List of sentences, one for each part that was reset.

    Raises:
        ValueError: the file is no classifier, or one of another architecture; the
            model is then unchanged.
    """
    other = load(path)
    sources = {layer.name: layer for layer in conv_bn.leaves(other.blocks)}
    layers = list(conv_bn.leaves(model.blocks))
    quantizes = _is_quantized(model) and not _is_quantized(other)
    new = [layer for layer in layers if layer.name not in sources]
    dropped = set(sources) - {layer.name for layer in layers}
    # A low-bit network has normalizations and quantizers that a float one does not, and
    # ranges come and go with --rest_bits.
    fits = all(map(quantization.is_range, [*new, *map(sources.get, dropped)]))
    fits |= quantizes and not any(isinstance(x, keras.layers.Conv2D) for x in new)
    if not fits or (other.name, other.scaling) != (model.name, model.scaling):
        raise ValueError(
            "--init_from needs a float run, or one of the same bits, of the same "
            f"--model and --scaling. Received: {path} with {_description(other)}, for "
            f"{_description(model)}"
        )
    values = []
    for layer in layers:
        if layer in new:
            continue
        found = _weights(layer, sources[layer.name])
        if isinstance(layer, quantizers.LQActivationQuantizer) and layer.rows > 1:
            found = _private_bases(layer, found, model, other)
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if [array.shape for array in found] != shapes:
            raise ValueError(
                "--init_from needs a run of the same --model, --width, bits and "
                "--activation_basis. "
                f"Received: {path} with {_description(other)}, for "
                f"{_description(model)}, where {layer.name} does not fit"
            )
        values.append((layer, found))
    for layer, found in values:
        layer.set_weights(found)
    sentences = []
    if quantizes:
        sentences.append(
            f"float weights: the bases of weights were fitted to them; {len(new)} "
            f"layers start anew, {len(dropped)} are not used"
        )
    elif model.rest_bits != other.rest_bits:
        sentences.append(
            f"--rest_bits: {len(new) + len(model.ranges)} ranges start anew, "
            f"{len(dropped) + len(other.ranges)} are not used"
        )
    for place in set(model.ranges) & set(other.ranges):
        model.ranges[place].set_weights(other.ranges[place].get_weights())
    return sentences + _start_head(model, other) + _start_alpha(model, other)


def _is_quantized(model):
    return any(map(quantization.is_quantized, conv_bn.leaves(model.blocks)))


def _description(model):
    """The network and the bits of its weights and activations: "resnet18 2/32"."""
    bits = {"weights": quantization.FLOAT_BITS, "activations": quantization.FLOAT_BITS}
    for layer in conv_bn.leaves(model.blocks):
        for part in (layer, getattr(layer, "weight_quantizer", None)):
            if hasattr(part, "kind"):
                bits[part.kind] = part.bits
    return (
        f"{model.name} {bits['weights']}/{bits['activations']}, "
        f"--scaling={model.scaling}"
    )


def _weights(layer, source):
    """What a layer takes over from its namesake, in the order of its weights."""
    if quantization.is_quantized(layer) and not quantization.is_quantized(source):
        quantizer = layer.weight_quantizer
        kept = [np.array(weight) for weight in quantizer.weights]
        found = source.get_weights()
        if found[0].shape == layer.kernel.shape:
            kept[0] = np.array(layer.fitted_basis(found[0]))[None]
        return [*found, *kept]
    if _stock(source) is not _stock(layer):
        return []
    if not isinstance(layer, switchable_norm.SwitchableBatchNormalization):
        return source.get_weights()
    side = layer.resolutions[0]
    keys = [
        key if not isinstance(key, str) or key in source.keys else side
        for key in layer.keys
    ]
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    rows = zip(*map(source.parameters_at, keys), strict=True)
    stacked = {name: np.stack(row) for name, row in zip(names, rows, strict=True)}
    return [stacked[weight.name] for weight in layer.weights]


def _private_bases(layer, found, model, other):
    """A row for each of the model's branches: that of the nearest one there."""
    count = len(other.keys)
    if not found or found[0].shape[0] != count:
        return found  # refused for its shape
    rows = [
        other.keys.index(key)
        if key in other.keys
        else min(range(count), key=lambda row: abs(_side(other, row) - side))
        for key, side in zip(model.keys, model.resolutions * model.views, strict=True)
    ]
    shared = len(layer.collected)
    return [*(array[rows] for array in found[:-shared]), *found[-shared:]]


def _side(model, row):
    return (model.resolutions * model.views)[row]


def _stock(layer):
    """The class of a layer, or the stock one that a quantized one derives from."""
    for kind in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
        if isinstance(layer, kind):
            return kind
    return type(layer)


def _start_head(model, other):
    if model.head.kernel.shape == other.head.kernel.shape:
        model.head.set_weights(other.head.get_weights())
        if model.class_names == other.class_names:
            return []
        return ["the head was copied, although the names of the classes differ"]
    return [
        f"the head was reset: it has {model.num_classes} classes here, "
        f"{other.num_classes} there"
    ]


def _start_alpha(model, other):
    if model.keys == other.keys:
        model.alpha.assign(other.alpha)
    elif len(model.keys) > 1:
        return ["alpha was reset: the resolutions differ"]
    return []

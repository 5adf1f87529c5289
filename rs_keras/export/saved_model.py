"""One SavedModel for all resolutions: an endpoint for each, one copy of the weights."""

import os
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow as tf

from rs_keras.export import network as network_lib
from rs_keras.export import output

INPUT_DTYPES = ("float32", "uint8")
# Of the logits of an image, as a share of their norm. What is compared is the same
# arithmetic in two graphs, which TensorFlow may order differently: some roundings of
# the compute dtype (measured: float32 7e-7, bfloat16 3e-3).
TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
# What a SavedModel consists of.
_PARTS = {"saved_model.pb", "fingerprint.pb", "variables", "assets"}


def export_saved_model(model, path, input_dtype="float32", overwrite=False):
    """Writes a SavedModel that `tf.saved_model.load` reads without this package.

    Its signatures take `image` and give `logits` and `probabilities`, (N, num_classes)
    float32: `r224` and so on, (N, 224, 224, 3), one for each resolution;
    `serving_default`, (N, H, W, 3), whose resolution is round(sqrt(H * W)), batch
    normalization interpolated between trained ones and nearest beyond them. Images are
    RGB 0..255. Python also finds the signatures as functions (`loaded.r224(images)`),
    for images of either dtype. The asset `class_names.txt` has the names of the
    classes, one a line.

    What was written is loaded and compared with the model before it gets its name.

    Args:
        model: `Classifier`.
        path: the directory to make.
        input_dtype: of the signatures' images, "float32" or "uint8".
        overwrite: replace a SavedModel that is there.

    Returns:
        {"signatures": {name: {"image": shape without N, "error": of its logits,
        relative to their norm}}, "bytes": {file: size}}.

    Raises:
        ValueError: the network cannot be exported, or the path may not be replaced.
        OSError: the path cannot be written.
        output.VerificationError: a signature is further from the model than
            `TOLERANCES` allow. Whatever is raised, nothing new is left, and what was
            there stays.
    """
    if input_dtype not in INPUT_DTYPES:
        raise ValueError(
            f"`input_dtype` must be one of {INPUT_DTYPES}. "
            f"Received: input_dtype={input_dtype!r}"
        )
    path = check_output(path, overwrite)
    # Beside the output, for a rename does not leave a file system; under a name that
    # nobody has, and without the output's, which TensorFlow may take for a pattern.
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=".saved_model.", dir=path.parent))
    try:
        network = network_lib.InferenceNetwork(model)
        written = scratch / "written"
        with output.tensorflow("The SavedModel"):
            _write(network, written, scratch, input_dtype)
            errors = _compare(model, written, input_dtype)
        _put(written, path, scratch / "replaced")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sizes = {
        str(file.relative_to(path)): file.stat().st_size
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    return {"signatures": errors, "bytes": sizes}


def check_output(path, overwrite):
    """The absolute path; ValueError unless a SavedModel may be made there."""
    path = output.check_directory(path)
    if set("*?[]\\") & set(str(path.parent)):
        raise ValueError(
            "TensorFlow takes *, ?, [, ] and \\ in the name of a directory for a "
            f"pattern; choose another. Received: {path}"
        )
    output.check_free(path, overwrite)
    if not os.path.lexists(path):
        return path
    found = set(os.listdir(path)) if path.is_dir() and not path.is_symlink() else set()
    if "saved_model.pb" not in found or found - _PARTS:
        raise ValueError(
            "Only a directory with a SavedModel and nothing else is overwritten. "
            f"Received: {path}"
        )
    return path


def _put(written, path, replaced):
    """Renames `written` to `path`; what was there comes back if that fails."""
    if not path.exists():
        written.rename(path)
        return
    path.rename(replaced)
    try:
        written.rename(path)
    except BaseException:
        replaced.rename(path)
        raise


def _write(network, path, scratch, input_dtype):
    """Writes the endpoints, which share one traced function and its variables."""
    module = tf.Module()
    table = tf.Variable(network.table, name="private_parameters", trainable=False)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3), "float32"),
            tf.TensorSpec(network.table.shape[1:], "float32"),
        ]
    )
    def branch(images, private):
        logits = network.logits(images, private)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    # One trace for all: a function called in a function may be traced again.
    branch = branch.get_concrete_function()
    signatures = {}

    def add(name, side, private):
        """An endpoint for both dtypes, and a signature, which has one."""

        def function(image):
            return branch(tf.cast(image, "float32"), private(image))

        function.__name__ = name
        endpoint = tf.function(function)
        traces = {
            dtype: endpoint.get_concrete_function(
                tf.TensorSpec((None, side, side, 3), dtype, name="image")
            )
            for dtype in INPUT_DTYPES
        }
        setattr(module, name, endpoint)
        signatures[name] = traces[input_dtype]

    for row, resolution in enumerate(network.resolutions):
        add(f"r{resolution}", resolution, lambda image, row=row: table[row])
    add(
        "serving_default",
        None,
        lambda image: network.private_at(table, network_lib.resolution_of(image)),
    )
    module.weights = [table, *branch.graph.variables]
    if network.class_names is not None:
        names = scratch / "class_names.txt"
        names.write_text("".join(f"{name}\n" for name in network.class_names), "utf-8")
        module.class_names = tf.saved_model.Asset(str(names))
    tf.saved_model.save(module, str(path), signatures)


def _compare(model, path, input_dtype):
    """{signature: {"image", "error"}} of generated images."""
    loaded = tf.saved_model.load(str(path))
    generator = np.random.default_rng(0)
    largest, smallest = model.resolutions[0], model.resolutions[-1]
    sides = {f"r{r}": (r, r) for r in model.resolutions}
    # Not square, and between two resolutions where there are two.
    sides["serving_default"] = (largest, (largest + smallest) // 2)
    tolerance = TOLERANCES[model.compute_dtype]
    report = {}
    for name, (height, width) in sides.items():
        images = generator.integers(0, 256, (5, height, width, 3), dtype=np.uint8)
        resolution = round((height * width) ** 0.5)
        expected = _logits(model, tf.constant(images), resolution)
        if not np.isfinite(expected).all():
            raise ValueError(
                "The network's logits must be finite to be exported. "
                f"Received: {model.name}, with others at {resolution}"
            )
        signature = loaded.signatures[name]
        found = [
            getattr(loaded, name)(tf.constant(images, dtype))["logits"].numpy()
            for dtype in INPUT_DTYPES
        ]
        image = tf.constant(images, input_dtype)
        found.append(signature(image=image)["logits"].numpy())
        # The median over the images: a rounding may take an activation of one of them
        # over the threshold between two levels.
        error = float(max(np.median(_errors(logits, expected)) for logits in found))
        if not error <= tolerance:
            raise output.VerificationError(
                f"The logits of {name} differ from those of the model by {error:.2g} "
                f"of their norm; at most {tolerance} is allowed. Nothing was written."
            )
        image = signature.structured_input_signature[1]["image"]
        report[name] = {"image": image.shape.as_list()[1:], "error": error}
    return report


def _logits(model, images, resolution):
    """The model as a graph: one operation after the other rounds otherwise."""
    graph = tf.function(lambda x: model(x, resolution=resolution, training=False))
    # A concrete one: TensorFlow warns of functions that are traced again and again.
    return graph.get_concrete_function(images)(images).numpy()


def _errors(found, expected):
    """Of each image."""
    norms = np.linalg.norm(expected, axis=1)
    return np.linalg.norm(found - expected, axis=1) / np.maximum(norms, 1e-12)

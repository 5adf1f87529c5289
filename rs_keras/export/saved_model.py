"""One SavedModel for all resolutions: an endpoint for each, one copy of the weights."""

import pathlib
import shutil

import numpy as np
import tensorflow as tf

from rs_keras.export import network as network_lib

INPUT_DTYPES = ("float32", "uint8")
# Of logits, as a share of their norm: the same arithmetic in another graph, whose
# normalization TensorFlow may compute in another order.
TOLERANCE = 1e-4


class VerificationError(Exception):
    """What was written does not compute what the model computes."""


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
        VerificationError: a signature is further from the model than `TOLERANCE`.
            Whatever is raised, nothing is left behind, and what was there stays.
    """
    if input_dtype not in INPUT_DTYPES:
        raise ValueError(
            f"`input_dtype` must be one of {INPUT_DTYPES}. "
            f"Received: input_dtype={input_dtype!r}"
        )
    path = pathlib.Path(path)
    check_output(path, overwrite)
    network = network_lib.InferenceNetwork(model)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _write(network, temporary / "saved_model", temporary, input_dtype)
        errors = _compare(model, temporary / "saved_model", input_dtype)
        if path.exists():
            path.rename(temporary / "replaced")
        (temporary / "saved_model").rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sizes = {
        str(file.relative_to(path)): file.stat().st_size
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    return {"signatures": errors, "bytes": sizes}


def check_output(path, overwrite):
    """Raises ValueError unless a SavedModel may be made there."""
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise ValueError(
            f"The output must be in a directory that exists. Received: {path}"
        )
    if path.exists() and not overwrite:
        raise ValueError(
            f"The output exists; choose another, or --overwrite. Received: {path}"
        )
    if path.exists() and not (path / "saved_model.pb").is_file():
        raise ValueError(
            f"Only a SavedModel is overwritten. Received: {path}, which is none"
        )


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
    captured = branch.get_concrete_function().graph.variables
    module.weights = [table, *captured]
    if network.class_names is not None:
        names = scratch / "class_names.txt"
        names.write_text("".join(f"{name}\n" for name in network.class_names), "utf-8")
        module.class_names = tf.saved_model.Asset(str(names))
    try:
        tf.saved_model.save(module, str(path), signatures)
    except tf.errors.OpError as error:  # a full disk, say
        raise OSError(f"The SavedModel cannot be written: {error.message}") from error


def _compare(model, path, input_dtype):
    """{signature: {"image", "error"}} of generated images."""
    loaded = tf.saved_model.load(str(path))
    generator = np.random.default_rng(0)
    largest, smallest = model.resolutions[0], model.resolutions[-1]
    sides = {f"r{r}": (r, r) for r in model.resolutions}
    # Not square, and between two resolutions where there are two.
    sides["serving_default"] = (largest, (largest + smallest) // 2)
    errors = {}
    for name, (height, width) in sides.items():
        images = generator.integers(0, 256, (2, height, width, 3)).astype(input_dtype)
        resolution = round((height * width) ** 0.5)
        expected = np.array(model(images, resolution=resolution, training=False))
        found = loaded.signatures[name](image=tf.constant(images))["logits"].numpy()
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        if not error <= TOLERANCE:
            raise VerificationError(
                f"The logits of {name} differ from those of the model by {error:.2g} "
                f"of their norm; at most {TOLERANCE} is allowed. Nothing was written."
            )
        image = loaded.signatures[name].structured_input_signature[1]["image"]
        errors[name] = {"image": image.shape.as_list()[1:], "error": float(error)}
    return errors

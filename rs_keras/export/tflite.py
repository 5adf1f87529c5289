"""One .tflite file for all resolutions, with one copy of the kernels."""

import hashlib
import pathlib
import shutil
import tempfile

import tensorflow as tf

from rs_keras import tool_flag_definitions
from rs_keras.export import calibration as calibration_lib
from rs_keras.export import flatbuffer
from rs_keras.export import integer as integer_lib
from rs_keras.export import kernel_storage
from rs_keras.export import network as network_lib
from rs_keras.export import output
from rs_keras.export import size
from rs_keras.export import verify
from rs_keras.export import weight_sharing
from rs_keras.layers import conv_bn
from rs_keras.layers import quantization

LAYOUTS = tool_flag_definitions.TFLITE_LAYOUTS
# {layout: its precision where none is asked for}; docs/tflite.md has the reasons.
DEFAULTS = {"signatures": "int8", "dynamic": "int8_weights"}
INPUT_DTYPES = ("float32", "uint8")
# Of activations that integer-only files have steps for: 15 of them at 4 bits.
LARGEST_BITS = 4
DYNAMIC_KEY = "serving_default"


def check_options(layout, precision, input_dtype=None):
    """Raises ValueError unless a file can have them all."""
    if layout not in LAYOUTS:
        raise ValueError(
            f"`layout` must be one of {tuple(LAYOUTS)}. Received: layout={layout!r}"
        )
    if precision not in LAYOUTS[layout]:
        raise ValueError(
            f"`precision` of the layout {layout} must be one of {LAYOUTS[layout]}. "
            f"Received: precision={precision!r}"
        )
    if input_dtype not in (None, *INPUT_DTYPES):
        raise ValueError(
            f"`input_dtype` must be one of {INPUT_DTYPES}. "
            f"Received: input_dtype={input_dtype!r}"
        )
    if precision == "int8" and input_dtype == "float32":
        raise ValueError(
            "The image of integer-only files is uint8. Received: input_dtype='float32'"
        )


def check_output(path, overwrite):
    """The absolute path; ValueError unless a file may be made there."""
    path = output.check_directory(path)
    if path.is_dir():
        raise ValueError(f"The output must be a file. Received: {path}")
    output.check_free(path, overwrite)
    output.check_free(report_path(path), overwrite)
    return path


def report_path(path):
    """Where the report of a file is written."""
    return pathlib.Path(f"{path}.report.json")


def convert(
    model,
    layout,
    precision="float32",
    *,
    resolutions=None,
    input_dtype=None,
    calibration=None,
    threads=0,
):
    """The bytes of a .tflite file.

    Layout "signatures": `r224` and so on, one for each resolution, `image` (1, 224,
    224, 3). Layout "dynamic": `serving_default`, `image` (N, H, W, 3), of any size,
    with the batch normalization of round(sqrt(H * W)). Both give `logits` and
    `probabilities`, (N, num_classes), of RGB 0..255; float32, but int8 with a scale and
    a zero point in integer-only files ("int8", and "lq" of networks whose activations
    are quantized).

    Args:
        model: `Classifier`.
        layout, precision: see `LAYOUTS`.
        resolutions: with "signatures", some of the model's; default: all.
        input_dtype: of `image`, "float32" or "uint8"; default: float32, and uint8 for
            integer-only files, which have no other.
        calibration: where `needs_calibration`, {resolution: uint8 (N, r, r, 3)}: images
            that activate the network as those in use will.
        threads: for the calibration; 0 for LiteRT's default.

    Returns:
        (bytes, report: {"layout", "precision", "resolutions", "classes", "bytes",
        "sha256", "kernels", "bytes_by_kind"}).

    Raises:
        ValueError: an argument breaks these rules, or the network cannot be exported.
    """
    check_options(layout, precision, input_dtype)
    resolutions = check_resolutions(model, layout, resolutions)
    integer = needs_calibration(model, precision)
    if integer and (calibration is None or set(resolutions) - set(calibration)):
        raise ValueError(
            f"{precision} needs `calibration` images at {resolutions}. "
            f"Received: {calibration and tuple(calibration)}"
        )
    if integer and input_dtype == "float32":
        raise ValueError(
            "The image of integer-only files is uint8. Received: input_dtype='float32'"
        )
    # Integers come of a float graph, whose image is read as it is.
    input_dtype = "float32" if integer else input_dtype or "float32"
    # Runtimes choose the precision of their arithmetic by themselves.
    network = network_lib.InferenceNetwork(network_lib.in_float32(model))
    if layout == "signatures":
        functions = static_functions(network, resolutions, input_dtype)
    else:
        functions = dynamic_function(network, input_dtype)
    parsed = flatbuffer.read(stock(network, functions))
    # It names the oldest runtime for the operators that the converter has written.
    parsed.metadata = []
    flatbuffer.subset(parsed, list(functions))
    flatbuffer.shorten_names(parsed)
    kernels = weight_sharing.find(parsed)
    products = 0
    if precision in ("int8_weights", "int8", "lq"):
        products = kernel_storage.align_signs(parsed, kernels)
    if integer:
        images = {f"r{r}": calibration[r].astype("float32") for r in resolutions}
        ranges = calibration_lib.ranges(flatbuffer.write(parsed), images, threads)
        stored = integer_lib.make_integer(parsed, kernels, ranges, precision == "lq")
    elif precision in ("int8_weights", "lq"):
        stored = kernel_storage.store_int8(parsed, kernels, precision == "lq")
    else:
        stored = kernel_storage.store_float(parsed, kernels, precision == "float16")
    stored["products"] += products
    data = flatbuffer.write(parsed)
    return data, {
        "layout": layout,
        "precision": precision,
        "resolutions": list(resolutions),
        "classes": model.class_names,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "kernels": stored,
        "bytes_by_kind": size.bytes_by_kind(data),
    }


def check_resolutions(model, layout, resolutions):
    """Those that a file is made for, descending; ValueError unless they are trained."""
    if resolutions is None:
        return model.resolutions
    if layout == "dynamic":
        raise ValueError(
            "The layout dynamic serves all resolutions; `resolutions` go with the "
            f"layout signatures. Received: resolutions={tuple(resolutions)}"
        )
    unknown = set(resolutions) - set(model.resolutions)
    if unknown or not resolutions:
        raise ValueError(
            f"`resolutions` must be some of {model.resolutions}. "
            f"Received: resolutions={tuple(resolutions)}"
        )
    return tuple(sorted(set(resolutions), reverse=True))


def resolutions_to_verify(layout, resolutions):
    """Those of a file, and one between them where there is none of its own."""
    between = []
    if layout == "dynamic" and len(resolutions) > 1:
        between = [(resolutions[0] + resolutions[1]) // 2]
    return sorted({*resolutions, *between}, reverse=True)


def needs_calibration(model, precision):
    """Whether a file computes with integers; ValueError if a network cannot be lq."""
    leaves = conv_bn.leaves(model.blocks)
    if precision == "lq" and not any(map(quantization.is_quantized, leaves)):
        raise ValueError(
            "lq is for networks trained with --weight_bits. "
            f"Received: {model.name}, whose kernels are float"
        )
    bits = [quantizer.bits for quantizer in network_lib.activation_quantizers(model)]
    integer = precision == "int8" or (precision == "lq" and bool(bits))
    if integer and max(bits, default=1) > LARGEST_BITS:
        raise ValueError(
            f"int8 and lq are for activations of up to {LARGEST_BITS} bits, or of 32. "
            f"Received: {model.name} with {max(bits)}"
        )
    return integer


def signatures_to_verify(report, images):
    """What to run: every signature, and the dynamic one at every size of the images.

    Args:
        report: of `convert`.
        images: {resolution: uint8 (N, r, r, 3)}.
    """
    dynamic = report["layout"] == "dynamic"
    return [
        verify.Signature(DYNAMIC_KEY if dynamic else f"r{r}", r, images[r])
        for r in images
    ]


def static_functions(network, resolutions, input_dtype):
    """{signature: concrete function} of static shapes."""

    def make(resolution):
        row = tf.constant(network.table[network.resolutions.index(resolution)])

        def function(image):
            return _outputs(network, image, row)

        # Functions of one name would become one signature.
        function.__name__ = f"r{resolution}"
        shape = (1, resolution, resolution, 3)
        image = tf.TensorSpec(shape, input_dtype, name="image")
        return tf.function(function).get_concrete_function(image)

    return {f"r{resolution}": make(resolution) for resolution in resolutions}


def dynamic_function(network, input_dtype):
    """{signature: concrete function} of one graph for images of all sizes."""
    table = tf.constant(network.table)

    def function(image):
        resolution = network_lib.resolution_of(image)
        return _outputs(network, image, network.private_at(table, resolution))

    image = tf.TensorSpec((None, None, None, 3), input_dtype, name="image")
    return {DYNAMIC_KEY: tf.function(function).get_concrete_function(image)}


def _outputs(network, image, private):
    logits = network.logits(tf.cast(image, "float32"), private)
    return {"logits": logits, "probabilities": tf.nn.softmax(logits)}


def stock(network, functions):
    """What TensorFlow's converter makes of the functions, as bytes."""
    module = tf.Module()
    module.weights = network.variables
    scratch = tempfile.mkdtemp(prefix="rs_keras.")
    try:
        with output.tensorflow("The graph for the converter"):
            tf.saved_model.save(module, scratch, functions)
            # from_concrete_functions would drop all signatures but one.
            converter = tf.lite.TFLiteConverter.from_saved_model(
                scratch, signature_keys=list(functions)
            )
            return converter.convert()
    except Exception as error:
        # Its class is in no public module.
        if type(error).__name__ != "ConverterError":
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"TensorFlow's converter must know the network. Received: {reason}"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

"""Bytes and errors of .tflite files, beside those of TensorFlow's own converter.

    python benchmarks/tflite_files.py --output=DIR [--images=DIR] [--model=NAME]
        [--sign_changes=0.1] [--stock]

Writes ResNet-18, ResNet-50, MobileNetV2 (1000 classes, 224 to 96 pixels) and ResNet-18
with 2-bit weights and activations, as float32 and lq, with random
weights, in every layout and precision, for `tools.benchmark_tflite` to time; --stock
adds one file of the converter for each resolution. --images calibrates int8 and gives
the errors; otherwise noise does. --sign_changes: share of channels whose gammas differ
in sign between resolutions; 5% are then 0 or below 1e-6 as well. Prints a JSON line for
each network: "ratio" is bytes over (one file of the converter + 32 bytes for each
normalized channel), with a quarter of its float32 for int8_weights.
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np

RESOLUTIONS = (224, 192, 160, 128, 96)
MODELS = ("resnet18", "resnet50", "mobilenet_v2", "resnet18_w2a2")
DIVISORS = {"float32": 1, "float16": 2, "int8_weights": 4}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--images")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--sign_changes", type=float)
    parser.add_argument("--stock", action="store_true")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    images = some_images(args.images)
    for name in args.model or MODELS:
        row = measure(name, images, args.output, args.sign_changes, args.stock)
        print(json.dumps({"model": name, "sign_changes": args.sign_changes, **row}))


def measure(name, images, output, sign_changes, all_stock):
    import rs_keras
    from rs_keras.export import network as network_lib
    from rs_keras.export import output as output_lib
    from rs_keras.export import tflite
    from rs_keras.export import verify

    bits = {"weight_bits": 2, "activation_bits": 2} if name.endswith("_w2a2") else {}
    factory = getattr(rs_keras, name.removesuffix("_w2a2"))
    model = randomized(factory(RESOLUTIONS, 1000, **bits), sign_changes)
    network = network_lib.InferenceNetwork(model)
    channels = sum(
        w.shape[1] for w in model.weights if w.name == "gamma" and len(w.shape) == 2
    )
    for resolution in RESOLUTIONS if all_stock else RESOLUTIONS[:1]:
        stock = tflite.stock(
            network, tflite.static_functions(network, [resolution], "float32")
        )
        (output / f"{name}_stock_{resolution}.tflite").write_bytes(stock)
        if resolution == RESOLUTIONS[0]:
            float_bytes = len(stock)
    # The converter has no integers for low-bit activations.
    integer_bytes = float_bytes / 4 if bits else len(stock_int8(network, images))
    found = {}
    for layout, precisions in tflite.LAYOUTS.items():
        for precision in precisions:
            if bool(bits) != (precision == "lq") and not (
                bits and precision == "float32"
            ):
                continue
            data, report = tflite.convert(model, layout, precision, calibration=images)
            (output / f"{name}_{layout}_{precision}.tflite").write_bytes(data)
            one = float_bytes / DIVISORS.get(precision, 1)
            if precision in ("int8", "lq"):
                one = integer_bytes
            some = {r: batch[:8] for r, batch in images.items()}
            try:
                rows = verify.verify(
                    data,
                    model,
                    tflite.signatures_to_verify(report, some),
                    precision,
                    min_agreement=0,
                )["signatures"]
                error = max(row["error"] for row in rows.values())
            except output_lib.VerificationError as failed:
                error = str(failed)
            found[f"{layout} {precision}"] = {
                "bytes": len(data),
                "ratio": round(len(data) / (one + 32 * channels), 4),
                "error": error,
                "copies": len(report["kernels"]["copies"]),
                "products": report["kernels"]["products"],
            }
    return {"stock": float_bytes, "stock_int8": integer_bytes, **found}


def randomized(model, sign_changes):
    """Weights as after a training that was nothing special."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        shape = weight.shape
        if weight.name == "gamma":
            values = draw.uniform(0.5, 1, shape)
            if sign_changes is not None:
                signs = np.where(draw.random(shape) < 0.5, -1, 1)
                mixed = draw.random(shape[1]) < sign_changes
                values *= np.where(mixed, signs, signs[0])
                dead = np.where(draw.random(shape) < 0.5, 0, draw.normal(size=shape))
                values = np.where(draw.random(shape[1]) < 0.05, 1e-6 * dead, values)
            weight.assign(values)
        elif weight.name in ("beta", "moving_mean"):
            weight.assign(0.1 * draw.normal(size=shape))
        elif weight.name == "moving_variance":
            weight.assign(draw.uniform(0.5, 1.5, shape))
    return model


def some_images(directory):
    """{resolution: uint8 (N, r, r, 3)}"""
    from rs_keras.data import samples

    if directory:
        return samples.of_directory(directory, RESOLUTIONS, 32)
    draw = np.random.default_rng(0)
    return {r: draw.integers(0, 256, (8, r, r, 3), "uint8") for r in RESOLUTIONS}


def stock_int8(network, images):
    """The converter's integer-only file of the largest resolution."""
    import tensorflow as tf

    from rs_keras.export import tflite

    functions = tflite.static_functions(network, RESOLUTIONS[:1], "float32")
    module = tf.Module()
    module.weights = network.variables
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(functions)
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            ("r224", {"image": image[None].astype("float32")})
            for image in images[224][:8]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
        return converter.convert()


if __name__ == "__main__":
    main()

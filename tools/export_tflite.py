"""One .tflite file for all resolutions, with one copy of the kernels:
python -m tools.export_tflite --workdir=DIR --output=model.tflite

Before the file gets its name it is run on images and compared with the network. Beside
it, in model.tflite.report.json, stands what was measured. docs/tflite.md explains
layouts and precisions.
"""

import json
import pathlib
import sys
import tempfile

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib

# Enough for an agreement of 0.99 to mean something; a minute for a large network.
VERIFY_IMAGES = 200
# Ranges hardly grow beyond them.
CALIBRATION_IMAGES = 100
# Times the memory of a file for one resolution.
MUCH_MEMORY = 2


def main():
    with config_lib.mistakes():
        config_lib.require("workdir", "output")
        config_lib.check_json()
        values = config_lib.values()
        resolutions = config_lib.resolutions()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.export import output
        from rs_keras.export import tflite
        from rs_keras.export import verify
        from rs_keras.training import devices

        path = tflite.check_output(values.output, values.overwrite)
        report_path = tflite.report_path(path)
        config_lib.check_json_is_apart(path, report_path)
        if values.verify == "off" and values.verify_images:
            raise ValueError(
                "--verify_images go with --verify=on. "
                f"Received: --verify=off --verify_images={values.verify_images}"
            )
        precision = values.precision or tflite.DEFAULTS[values.layout]
        tflite.check_options(values.layout, precision, values.input_dtype)
        devices.start(values.threads)
        model = keras_file.load(workdir.path)
        chosen = tflite.check_resolutions(model, values.layout, resolutions)
        images = calibration = None
        with config_lib.mistakes(damage.DamagedImage), damage.damaged_images():
            if values.verify == "on":
                sides = tflite.resolutions_to_verify(values.layout, chosen)
                images = _images(workdir, model, sides, "verify", values.verify_images)
            integer = tflite.needs_calibration(model, precision)
            if values.calibration_images and not integer:
                raise ValueError(
                    "--calibration_images go with files that compute with integers. "
                    f"Received: --precision={precision} "
                    f"--calibration_images={values.calibration_images}"
                )
            if integer:
                calibration = _images(
                    workdir, model, chosen, "calibration", values.calibration_images
                )
        print(f"Converting {model.name} ({values.layout}, {precision})")
        data, report = tflite.convert(
            model,
            values.layout,
            precision,
            resolutions=resolutions,
            input_dtype=values.input_dtype,
            calibration=calibration,
            threads=values.threads,
        )
    if images is None:
        report["verification"] = "off"
    else:
        count = len(next(iter(images.values())))
        print(f"Comparing it with the network on {count} images of each size")
        try:
            report["verification"] = verify.verify(
                data,
                model,
                tflite.signatures_to_verify(report, images),
                precision,
                min_agreement=values.min_agreement,
                threads=values.threads,
            )
        except output.VerificationError as error:
            sys.exit(f"error: {error}")
    with config_lib.mistakes():
        report["memory"] = _memory(model, data, report)
        text = json.dumps(report, indent=1, allow_nan=False) + "\n"
        output.write_files({report_path: text.encode(), path: data})
        print("\n".join(lines(report, values.output)))
        if values.json:
            workdir_lib.write_json(values.json, report)


def lines(report, output):
    """The report as text."""
    yield f"{output}: {report['bytes']:,} bytes, sha256 {report['sha256'][:16]}…"
    kinds = (f"{k} {v:,}" for k, v in report["bytes_by_kind"].items() if v)
    yield "  " + ", ".join(kinds)
    kernels = report["kernels"]
    if kernels["copies"]:
        extra = sum(copy["bytes"] for copy in kernels["copies"])
        yield (
            f"  copies of kernels for a resolution where factors differ in sign: "
            f"{len(kernels['copies'])}, {extra:,} bytes"
        )
    if kernels["products"]:
        yield (
            f"  {kernels['products']} products behind convolutions, "
            f"{kernels['sums']} of them with a sum"
        )
    for api, used in report["memory"].items():
        if used is not None:
            found = f"  {used['bytes'] / 1e6:,.1f} MB after running all ({api}), "
            found += (
                f"{used['ratio']:.2f} of a float32 file of {max(report['resolutions'])}"
            )
            if used["ratio"] > MUCH_MEMORY:
                found += ": each signature has weights of its own in memory"
            yield found
    verification = report["verification"]
    if verification == "off":
        yield "  not compared with the network (--verify=off)"
        return
    yield (
        f"  {verification['images']} images, error at most "
        f"{verification['tolerance']:g}; docs/tflite.md explains the columns"
    )
    yield (
        f"{'signature':20} {'error':>8} {'of all':>7} {'agreement':>10}  near-ties  "
        "delegated"
    )
    for name, row in verification["signatures"].items():
        ties = f"{row['near_ties_agree']}/{row['near_ties']}"
        delegated = f"{row['delegated']}/{row['operators']}"
        found = (
            f"{name:20} {row['error']:8.1e} {row['agreement_of_all']:7.1%} "
            f"{row['agreement']:10.1%}  {ties:>9}  {delegated}"
        )
        if row["fallbacks"]:
            others = (f"{number} {op}" for op, number in row["fallbacks"].items())
            found += "; not: " + ", ".join(others)
        if row["inconclusive"]:
            found += f"; inconclusive: {row['classes']} classes"
        yield found


def _memory(model, data, report):
    """{api: {"bytes", "ratio": to the converter's file of the largest resolution}}."""
    from rs_keras.export import network as network_lib
    from rs_keras.export import tflite
    from rs_keras.profiling import tflite_cost
    from rs_keras.profiling import tflite_entry

    network = network_lib.InferenceNetwork(network_lib.in_float32(model))
    functions = tflite.static_functions(network, report["resolutions"][:1], "float32")
    with tempfile.TemporaryDirectory(prefix="rs_keras.") as folder:
        entries = []
        for name, content in (("one", tflite.stock(network, functions)), ("all", data)):
            path = pathlib.Path(folder) / f"{name}.tflite"
            path.write_bytes(content)
            entries.append(tflite_entry.entry(name, [path], report["resolutions"]))
        found = tflite_cost.memory(entries)
    return {
        api: used and {"bytes": used[1], "ratio": round(used[1] / used[0], 3)}
        for api, used in found.items()
    }


def _images(workdir, model, sides, purpose, directory):
    """{resolution: uint8 (N, r, r, 3)} of a directory, or of the run's own data.

    Args:
        purpose: "verify" or "calibration", which has the training set.
    """
    from rs_keras import run_data
    from rs_keras.data import samples

    split, count, otherwise = {
        "verify": ("val", VERIFY_IMAGES, ", or --verify=off"),
        "calibration": ("train", CALIBRATION_IMAGES, ""),
    }[purpose]
    if directory:
        try:
            return samples.of_directory(directory, sides, count)
        except (OSError, ValueError) as error:
            raise ValueError(f"--{purpose}_images: {error}") from error
    try:
        source = run_data.open_source(workdir, split)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"The run's own images ({split}) cannot be read; name others with "
            f"--{purpose}_images={otherwise}. Received: {error}"
        ) from error
    return samples.of_source(
        source,
        sides,
        count,
        preprocessing=workdir.flag("preprocessing", "rsnet"),
        largest=model.resolutions[0],
    )


if __name__ == "__main__":
    tool_flag_definitions.define_export_tflite_flags()
    config_lib.run(main)

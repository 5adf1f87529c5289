"""One SavedModel for all resolutions:
python -m tools.export_saved_model --workdir=DIR --output=DIR

A signature for each resolution (`r224`, …) and `serving_default`, whose batch
normalization follows the size of the image, over one copy of the weights. Before it
gets its name the file is loaded and compared with the network.
"""

import sys

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir", "output")
        config_lib.check_json()
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras.checkpoints import keras_file
        from rs_keras.export import output
        from rs_keras.export import saved_model

        path = saved_model.check_output(values.output, values.overwrite)
        config_lib.check_json_is_apart(path)
        try:
            report = saved_model.export_saved_model(
                keras_file.load(workdir.path),
                values.output,
                input_dtype=values.input_dtype or "float32",
                overwrite=values.overwrite,
            )
        except output.VerificationError as error:
            sys.exit(f"error: {error}")
        print("\n".join(lines(report, values.output)))
        if values.json:
            workdir_lib.write_json(values.json, report)


def lines(report, output):
    """The report of `export_saved_model` as text."""
    sizes = report["bytes"]
    total = sum(sizes.values())
    yield f"{output}: {total:,} bytes, {sizes['saved_model.pb']:,} of them the graph"
    yield f"{'signature':16} {'image':20} relative error of logits"
    for name, found in report["signatures"].items():
        shape = "x".join(str(side or "?") for side in found["image"])
        yield f"{name:16} {shape:20} {found['error']:.1e}"


if __name__ == "__main__":
    tool_flag_definitions.define_export_saved_model_flags()
    config_lib.run(main)

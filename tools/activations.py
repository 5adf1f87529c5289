"""Features of validation images, prepared as for training and for testing.

RS-Nets, Fig. 3: the distribution of what global average pooling returns, at every
resolution: of the validation images cropped at random, as in training, and cut from the
centre. In training an object fills more of the image; the gap between the two curves
is what that does to the features.
"""

from rs_keras import config as config_lib
from rs_keras import pictures
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir")
        config_lib.check_json()
        config_lib.check_plot()
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras import run_analysis
        from rs_keras import run_data
        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.evaluation import analysis
        from rs_keras.training import devices

        devices.start(values.threads)
        model = keras_file.load(workdir.path)
        source = run_data.open_source(workdir, "val")
        with config_lib.mistakes(damage.DamagedImage):
            found = run_analysis.features(
                workdir, model, source, batch_size=values.batch_size
            )
        print(table(found))
        if values.json:
            report = {"images": source.num_examples, "shares": analysis.SHARES.tolist()}
            workdir_lib.write_json(values.json, {**report, "resolutions": found})
        if values.plot:
            pictures.cumulative(values.plot, found, analysis.SHARES)


def table(found):
    """The gaps and means as lines of text."""
    lines = ["resolution   mean as in training   mean as in testing   largest gap"]
    for key, row in found.items():
        means = f"{row['mean_train']:19.4f}  {row['mean_test']:19.4f}"
        lines.append(f"{key:<12} {means}  {row['gap']:12.4f}")
    return "\n".join(lines)


def console():
    tool_flag_definitions.define_activations_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

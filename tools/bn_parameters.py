"""What batch normalization learnt, by layer and resolution: ... --workdir=DIR

RS-Nets, Fig. 6: the mean over the channels of gamma, beta, mean and variance, of every
layer and at every resolution. Needs no images.
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

        from rs_keras.checkpoints import keras_file
        from rs_keras.evaluation import analysis

        found = analysis.batch_norm(keras_file.load(workdir.path))
        print(table(found))
        if values.json:
            workdir_lib.write_json(values.json, found)
        if values.plot:
            pictures.batch_norm(values.plot, found["rows"])


def table(found):
    """gamma and the other three as lines of text, a column for each resolution."""
    width = max(map(len, found["layers"]))
    lines = []
    for name in ("gamma", "beta", "mean", "variance"):
        lines.append(
            f"{name:<{width}}" + "".join(f"{key:>11}" for key in found["rows"])
        )
        for number, layer in enumerate(found["layers"]):
            cells = (f"{row[name][number]:11.4f}" for row in found["rows"].values())
            lines.append(f"{layer:<{width}}" + "".join(cells))
    return "\n".join(lines)


def console():
    tool_flag_definitions.define_bn_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

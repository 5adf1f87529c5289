"""The weights of the ensemble over training: ... --workdir=DIR

RS-Nets, supplement, Appendix A: the share of each resolution in the ensemble, softmax
of alpha, after every epoch, as the run has written it for TensorBoard. The run need not
have finished.
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
        if not workdir.has_run():
            raise ValueError(
                f"--workdir must hold a run. Received: --workdir={workdir.path}"
            )

        from rs_keras.training import tensorboard

        shares = tensorboard.read_shares(workdir.tensorboard)
        if not shares:
            raise ValueError(
                "--workdir must hold a run that has finished an epoch, with what it "
                f"wrote for TensorBoard. Received: --workdir={workdir.path}"
            )
        print(table(shares))
        if values.json:
            workdir_lib.write_json(values.json, {"alpha": shares})
        if values.plot:
            pictures.alpha(values.plot, shares)


def table(shares):
    """A line for each epoch, a column for each branch."""
    epochs = next(iter(shares.values()))
    lines = ["epoch" + "".join(f"{key:>12}" for key in shares)]
    for epoch in epochs:
        cells = (f"{row[epoch]:12.4f}" for row in shares.values())
        lines.append(f"{epoch:>5}" + "".join(cells))
    return "\n".join(lines)


def console():
    tool_flag_definitions.define_alpha_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

"""The weights of the ensemble over training: ... --workdir=DIR

RS-Nets, supplement, Appendix A: the share of each resolution in the ensemble, softmax
of alpha, after every epoch, as the run has written it for TensorBoard. The run need not
have finished.
"""

from rs_keras import config as config_lib
from rs_keras import pictures
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib

# Of the curves in TensorBoard.
_PREFIX = "alpha/"


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
        shares = read(workdir.tensorboard)
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


def read(directory):
    """{branch: {epoch, as text: share}} of a run; of an epoch that was repeated, the
    last."""
    from tensorboard.backend.event_processing import event_accumulator as events
    from tensorboard.util import tensor_util

    accumulator = events.EventAccumulator(str(directory), size_guidance={"tensors": 0})
    if not directory.is_dir():
        return {}
    accumulator.Reload()
    shares = {}
    for tag in accumulator.Tags()["tensors"]:
        if tag.startswith(_PREFIX):
            found = {
                event.step: float(tensor_util.make_ndarray(event.tensor_proto))
                for event in accumulator.Tensors(tag)
            }
            ordered = {str(step): found[step] for step in sorted(found)}
            shares[tag.removeprefix(_PREFIX)] = ordered
    return shares


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

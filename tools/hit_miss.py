"""What one resolution gets right and another does not: ... --workdir=DIR[,DIR,...]

RS-Nets, Table 1: the share of the validation images that are classified correctly at a
resolution (columns) and wrongly at another (rows). Of one run, or of several individual
networks, each of which stands for its own resolution.
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
        workdirs = [workdir_lib.Workdir(path) for path in values.workdir]
        for workdir in workdirs:
            workdir.trained_model()

        from rs_keras import run_analysis
        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.evaluation import analysis
        from rs_keras.training import devices

        devices.start(values.threads)
        source = run_analysis.shared_images(workdirs)
        found = {}
        for number, workdir in enumerate(workdirs, 1):
            model = keras_file.load(workdir.path)
            twice = set(model.keys) & set(found)
            if twice:
                raise ValueError(
                    "Each resolution must be that of one network. "
                    f"Received: --workdir={workdir.path} with {min(twice)} again"
                )
            with config_lib.mistakes(damage.DamagedImage):
                found |= run_analysis.hits(
                    workdir,
                    model,
                    source,
                    batch_size=values.batch_size,
                    work=f"evaluate network {number} of {len(workdirs)},",
                )[1]
        if len(found) < 2:
            raise ValueError(
                "At least two resolutions are needed, of one run or of several. "
                f"Received: {', '.join(map(str, found))}"
            )
    if len(workdirs) > 1:  # in any order; views are of one run
        found = dict(sorted(found.items(), reverse=True))
    shares = analysis.hit_miss(found)
    print(table(shares))
    with config_lib.mistakes():
        if values.json:
            report = {"images": source.num_examples, "hit_miss": shares}
            workdir_lib.write_json(values.json, report)
        if values.plot:
            names = ", ".join(workdir.path.name for workdir in workdirs)
            pictures.hit_miss(values.plot, shares, names)


def table(shares):
    """The shares as lines of text, in percent."""
    lines = ["wrong at \\ right at" + "".join(f"{key:>12}" for key in shares)]
    for miss, row in shares.items():
        cells = (
            f"{100 * row[hit]:12.1f}" if hit in row else f"{'-':>12}" for hit in shares
        )
        lines.append(f"{miss:<19}" + "".join(cells))
    return "\n".join(lines)


def console():
    tool_flag_definitions.define_hit_miss_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

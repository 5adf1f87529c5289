"""What one resolution gets right and another does not: ... --workdir=DIR[,DIR,...]

RS-Nets, Table 1: the share of the validation images that are classified correctly at a
resolution (columns) and wrongly at another (rows). Of one run, or of several individual
networks, each of which stands for its own resolution.
"""

from rs_keras import config as config_lib
from rs_keras import pictures
from rs_keras import progress as progress_lib
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

        from rs_keras import run_data
        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.evaluation import analysis
        from rs_keras.training import devices

        devices.start(values.threads)
        source = _source(workdirs)
        batches = -(-source.num_examples // values.batch_size)
        total = batches * len(workdirs)
        progress = progress_lib.Progress("evaluate", total, "batches")
        found = {}
        for workdir in workdirs:
            model = keras_file.load(workdir.path)
            twice = set(model.keys) & set(found)
            if twice:
                raise ValueError(
                    "Each resolution must be that of one network. "
                    f"Received: --workdir={workdir.path} with {min(twice)} again"
                )
            dataset = run_data.val_dataset(
                workdir,
                source,
                model.resolutions,
                batch_size=values.batch_size,
                views=model.views,
            )
            with config_lib.mistakes(damage.DamagedImage), damage.damaged_images():
                found |= analysis.hits(model, dataset, on_batch=progress.step)[1]
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


def _source(workdirs):
    """The validation images, which all runs must share."""
    from rs_keras import run_data

    found = {}
    for workdir in workdirs:
        name = workdir.flag("dataset")
        if name not in found:
            found[name] = run_data.open_source(workdir, "val")
    first = next(iter(found.values()))
    for name, other in found.items():
        same = other.fingerprint == first.fingerprint
        if not same or other.class_names != first.class_names:
            raise ValueError(
                "All runs must have the validation images of the first. "
                f"Received: --dataset={name} in one of them"
            )
    return first


def console():
    tool_flag_definitions.define_hit_miss_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

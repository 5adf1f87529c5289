"""What the smallest resolution costs each class, and which images: ... --workdir=DIR

The accuracy of each class at the largest and at the smallest resolution, and validation
images that only one of the two classifies correctly.
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
        config_lib.check_plot("examples")
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras import run_analysis
        from rs_keras import run_data
        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.data import pipeline
        from rs_keras.evaluation import analysis
        from rs_keras.training import devices

        devices.start(values.threads)
        model = keras_file.load(workdir.path)
        ends = (model.resolutions[0], model.resolutions[-1])
        if ends[0] == ends[1]:
            raise ValueError(
                "A network of at least two resolutions is needed. "
                f"Received: --workdir={workdir.path} with {ends[0]}"
            )
        source = run_data.open_source(workdir, "val")
        with config_lib.mistakes(damage.DamagedImage):
            labels, found = run_analysis.hits(
                workdir, model, source, ends, batch_size=values.batch_size
            )
        only = run_analysis.only_one(found, ends)
        changes = analysis.class_changes(
            labels, *(found[end] for end in ends), source.class_names
        )
        print(table(changes, ends))
        if values.json:
            names = pipeline.names(source)
            images = {k: [names[i] for i in v] for k, v in only.items()}
            counts = {k: len(v) for k, v in only.items()}
            report = {"classes": changes, "counts": counts, "images": images}
            workdir_lib.write_json(values.json, report)
        if values.plot:
            pictures.class_changes(values.plot, changes, ends)
        if values.examples:
            rows = run_analysis.examples(workdir, source, ends[0], labels, only)
            pictures.examples(values.examples, rows)


def table(changes, ends):
    """A line for each class, from the worst change to the best."""
    width = max(map(len, [*changes, "class"]))
    lines = [f"{'class':<{width}}  images  {ends[0]:>6}  {ends[1]:>6}  change"]
    for name, row in changes.items():
        accuracies = f"{row['largest']:6.3f}  {row['smallest']:6.3f}"
        head = f"{name:<{width}}  {row['images']:6}"
        lines.append(f"{head}  {accuracies}  {row['change']:+6.3f}")
    return "\n".join(lines)


def console():
    tool_flag_definitions.define_class_changes_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

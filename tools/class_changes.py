"""What the smallest resolution costs each class, and which images: ... --workdir=DIR

The accuracy of each class at the largest and at the smallest resolution, and validation
images that only one of the two classifies correctly.
"""

from rs_keras import config as config_lib
from rs_keras import pictures
from rs_keras import progress as progress_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib

# Images of each kind in the picture.
_SHOWN = 8


def main():
    with config_lib.mistakes():
        config_lib.require("workdir")
        config_lib.check_json()
        config_lib.check_plot()
        config_lib.check_plot("examples")
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        import numpy as np

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
        dataset = run_data.val_dataset(
            workdir, source, ends, batch_size=values.batch_size
        )
        total = -(-source.num_examples // values.batch_size)
        progress = progress_lib.Progress("evaluate", total, "batches")
        damaged = damage.damaged_images()
        with config_lib.mistakes(damage.DamagedImage), damaged:
            labels, found = analysis.hits(model, dataset, ends, on_batch=progress.step)
        large, small = found[ends[0]], found[ends[1]]
        only = {
            f"only at {ends[0]}": np.flatnonzero(large & ~small),
            f"only at {ends[1]}": np.flatnonzero(small & ~large),
        }
        changes = analysis.class_changes(labels, large, small, source.class_names)
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
            shown = {k: _pick(v, labels) for k, v in only.items()}
            picked = _images(dataset, ends[0], {i for v in shown.values() for i in v})
            rows = {
                kind: [(picked[i], source.class_names[labels[i]]) for i in indices]
                for kind, indices in shown.items()
            }
            pictures.examples(values.examples, rows)


def _pick(indices, labels):
    """Some of the images, of as many classes as there are."""
    first, others, seen = [], [], set()
    for index in indices:
        label = labels[index]
        (others if label in seen else first).append(int(index))
        seen.add(label)
    return [*first, *others][:_SHOWN]


def _images(dataset, side, wanted):
    """{position: image (r, r, 3) uint8} of some of a dataset."""
    found, start = {}, 0
    for images, labels in dataset.as_numpy_iterator():
        for index in wanted & set(range(start, start + len(labels))):
            found[index] = images[side][index - start]
        start += len(labels)
    return found


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

"""Tests a trained network: python -m rs_keras.evaluate --workdir=...

Resolutions between the trained ones use interpolated batch normalization. With
`--packed=model.lq` it is the packed network that is tested, on the data of the run.
"""

from rs_keras import config as config_lib
from rs_keras import flag_definitions
from rs_keras import progress as progress_lib
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir")
        config_lib.check_json()
        values = config_lib.values()
        resolutions = config_lib.resolutions()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras import build
        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.data import pipeline
        from rs_keras.data import sources
        from rs_keras.evaluation import evaluator
        from rs_keras.evaluation import report
        from rs_keras.training import devices

        devices.start(values.threads)
        model = keras_file.load(values.packed or workdir.path)
        dataset, scan = values.dataset, "on"
        if dataset is None:
            dataset, scan = workdir.flag("dataset"), workdir.flag("scan", "on")
        source = sources.open_source(dataset, "val", scan=scan)
        if model.class_names and tuple(source.class_names) != tuple(model.class_names):
            raise ValueError(
                "The dataset must have the classes of the network: "
                f"{_some(model.class_names)}. "
                f"Received: {_some(source.class_names)}"
            )
        if resolutions is None:
            keys, resolutions, views = model.keys, model.resolutions, model.views
        else:
            for resolution in resolutions:
                model.check_resolution(resolution)
            keys, views = resolutions, 1
        dataset = pipeline.val_dataset(
            source,
            resolutions,
            batch_size=values.batch_size,
            views=views,
            preprocessing=workdir.flag("preprocessing", "rsnet"),
            largest=model.resolutions[0],
        )
    batches = -(-source.num_examples // values.batch_size)
    progress = progress_lib.Progress("evaluate", batches, "batches")
    with config_lib.mistakes(damage.DamagedImage), damage.damaged_images():
        found = evaluator.evaluate(model, dataset, keys, on_batch=progress.step)
    sides, skipped = resolutions * views, (source.skipped,)
    results = build.results(model, found, keys, sides, skipped)
    print(report.table(results))
    if values.json:
        with config_lib.mistakes():
            workdir_lib.write_json(values.json, results)


def _some(names):
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def console():
    """Entry point of `rs-keras-evaluate`."""
    flag_definitions.define_evaluate_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

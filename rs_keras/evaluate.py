"""Tests a trained network: python -m rs_keras.evaluate --workdir=...

Resolutions that were not trained have the batch normalization that --bn says. With
`--packed=model.lq` it is the packed network that is tested, on the data of the run.
"""

from rs_keras import config as config_lib
from rs_keras import flag_definitions
from rs_keras import pictures
from rs_keras import progress as progress_lib
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir")
        values = config_lib.values()
        config_lib.check_json()
        config_lib.check_plot()
        _check_calibration(values)
        resolutions = config_lib.resolutions()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras import build
        from rs_keras import run_data
        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.data import sources
        from rs_keras.evaluation import evaluator
        from rs_keras.evaluation import report
        from rs_keras.training import devices

        devices.start(values.threads)
        model = keras_file.load(values.packed or workdir.path)
        if values.dataset is None:
            source = run_data.open_source(workdir, "val")
        else:
            source = sources.open_source(values.dataset, "val")
        run_data.check_classes(model, source)
        if values.plot and model.views > 1:
            raise ValueError(
                "--plot is for networks of several resolutions. "
                f"Received: --workdir={workdir.path} with {model.views} views"
            )
        if resolutions is None:
            keys, resolutions, views = model.keys, model.resolutions, model.views
        else:
            if resolutions[-1] < model.minimum_resolution:
                raise ValueError(
                    f"--resolutions must be at least {model.minimum_resolution}, which "
                    "the strides of the network need. "
                    f"Received: --resolutions={','.join(map(str, resolutions))}"
                )
            keys, views = resolutions, 1
        dataset = run_data.val_dataset(
            workdir,
            source,
            resolutions,
            batch_size=values.batch_size,
            views=views,
            largest=model.resolutions[0],
        )
        network = _with_rows(model, resolutions, values, workdir)
    batches = -(-source.num_examples // values.batch_size)
    progress = progress_lib.Progress("evaluate", batches, "batches")
    with config_lib.mistakes(damage.DamagedImage), damage.damaged_images():
        found = evaluator.evaluate(
            model, dataset, keys, network=network, on_batch=progress.step
        )
    sides, skipped = resolutions * views, (source.skipped,)
    results = build.results(model, found, keys, sides, skipped)
    untrained = {
        str(r): network.added_resolutions.get(r, {"bn": values.bn})
        for r in resolutions
        if r not in model.resolutions or r in model.added_resolutions
    }
    if untrained:
        results["untrained"] = untrained
    print(report.table(results))
    with config_lib.mistakes():
        if values.json:
            workdir_lib.write_json(values.json, results)
        if values.plot:
            _plot(values, results, resolutions, workdir)
    written = [path for path in (values.json, values.plot) if path]
    if written:
        print(f"Written: {', '.join(written)}")


def _check_calibration(values):
    if values.calibration_images is not None and "calibrate" not in values.bn:
        raise ValueError(
            "--calibration_images goes with --bn=calibrate or calibrate_exact. "
            f"Received: --bn={values.bn} "
            f"--calibration_images={values.calibration_images}"
        )


def _with_rows(model, resolutions, values, workdir):
    """The model, or a copy with rows for untrained resolutions as --bn says."""
    from rs_keras import run_data
    from rs_keras.data import damage
    from rs_keras.evaluation import calibration

    new = [r for r in resolutions if r not in model.resolutions]
    if values.bn == "interpolate" or not new:
        return model
    load, suspects = None, tuple
    if calibration.calibrates(values.bn):
        load, suspects = run_data.calibration_images(
            workdir,
            run_data.open_source(workdir, "train"),
            values.calibration_images,
            values.batch_size,
            model.resolutions[0],
        )

    def progress(title, batches):
        return progress_lib.Progress(title, batches, "batches")

    damaged = damage.damaged_images(suspects)
    with config_lib.mistakes(damage.DamagedImage), damaged:
        return calibration.add_resolutions(
            model, new, values.bn, load, progress=progress, report=print
        )


def _plot(values, results, resolutions, workdir):
    untrained = results.get("untrained", {})
    found = results["resolutions"]
    points = [(r, found[str(r)]["top1"], str(r) not in untrained) for r in resolutions]
    curves = {f"{workdir.path.name}, --bn={values.bn}": points}
    pictures.accuracy_against_resolution(values.plot, curves)


def console():
    """Entry point of `rs-keras-evaluate`."""
    flag_definitions.define_evaluate_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

"""Trains one network for several resolutions: python -m rs_keras.train --flagfile=...

Kept short: flags are read by `config`, parts are put together by `build`.
"""

import math
import sys
import time

from rs_keras import config as config_lib
from rs_keras import flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config = config_lib.train_config()
        workdir = workdir_lib.Workdir(config.workdir)
        workdir.check_resumable(config)
        run = _Run(config, workdir)
    try:
        run.train()
        run.finish()
    except KeyboardInterrupt:
        print(f"Interrupted. {run.how_to_go_on()}", file=sys.stderr)
        sys.exit(130)


class _Run:
    """One training run: prepared, trained epoch by epoch, finished."""

    def __init__(self, config, workdir):
        # Here and not on top, so that a wrong flag is answered at once.
        from rs_keras import build
        from rs_keras.checkpoints import keras_file
        from rs_keras.checkpoints import training_state
        from rs_keras.data import pipeline
        from rs_keras.data import sources

        self.config = config
        self.workdir = workdir
        self.build = build
        self.state = training_state
        build.set_up(config)
        options = {"scan": config.scan, "on_bad_image": config.on_bad_image}
        self.source, validation = sources.open_splits(
            config.dataset, **options
        ).values()
        self.skipped = (self.source.skipped, validation.skipped)
        self.steps = pipeline.steps_per_epoch(self.source, config.batch_size)
        self.model = build.classifier(config, self.source.class_names)
        self.validation = pipeline.val_dataset(
            validation,
            config.resolutions,
            batch_size=config.batch_size,
            views=config.views,
            preprocessing=config.preprocessing,
        )
        build.compile_model(self.model, config, self.steps)
        self.found = None  # what the last validation found
        self.data = {
            "classes": list(self.source.class_names),
            "images": self.source.num_examples,
            "steps": self.steps,
        }
        self.start_epoch = self._restore()
        if self.start_epoch == 0 and config.init_from:
            for sentence in keras_file.initialize_from(self.model, config.init_from):
                print(f"init_from: {sentence}")
        workdir.start(config)
        print(
            f"{self.source.num_examples} training and {validation.num_examples} "
            f"validation images, {len(self.source.class_names)} classes, "
            f"{self.steps} steps an epoch"
        )

    def train(self):
        from rs_keras.data import pipeline
        from rs_keras.training import loop
        from rs_keras.training import tensorboard

        if self.start_epoch == self.config.epochs:
            return
        self.board = tensorboard.Writer(self.workdir.tensorboard)
        dataset = self.build.train_batches(
            self.config, self.source, start_epoch=self.start_epoch
        )
        damaged = pipeline.DamagedImage
        with config_lib.mistakes(damaged), pipeline.damaged_images():
            if self.start_epoch == 0:
                self.board.images(next(iter(dataset))[0])
            loop.train(
                self.model,
                dataset,
                steps=self.steps,
                epochs=self.config.epochs,
                start_epoch=self.start_epoch,
                on_epoch_end=self._epoch_end,
            )

    def finish(self):
        """Writes model.keras and results.json and prints the table."""
        from rs_keras.evaluation import report

        model = self.model
        sides = model.resolutions * model.views
        found = self.found or self._evaluate()
        results = self.build.results(model, found, model.keys, sides, self.skipped)
        self.model.save(self.workdir.path / ".model.tmp.keras")
        (self.workdir.path / ".model.tmp.keras").replace(self.workdir.model)
        workdir_lib.write_json(self.workdir.results, results)
        print(report.table(results))
        print(f"Written to {self.workdir.path}: model.keras, results.json")

    def how_to_go_on(self):
        """What the same command would do, as a sentence."""
        kept = self.state.list_checkpoints(self.workdir.checkpoints)
        if not kept:
            return "No epoch is finished: the same command starts from the beginning."
        return f"The same command goes on from {kept[-1].name}."

    def _restore(self):
        """Restores the newest whole checkpoint; returns its epoch, 0 without one."""
        epoch = 0
        for path in reversed(self.state.list_checkpoints(self.workdir.checkpoints)):
            try:
                manifest = self.state.restore(path, self.model)
            except self.state.DamagedCheckpoint as error:
                print(f"warning: {error} is passed over", file=sys.stderr)
                continue
            if manifest["data"] != self.data:
                raise ValueError(
                    "The dataset must be that of the run: its classes or its number "
                    f"of images have changed. Received: --dataset={self.config.dataset}"
                )
            epoch = manifest["epoch"]
            print(f"Going on after epoch {epoch} of {self.config.epochs}")
            break
        for path in (self.workdir.metrics, self.workdir.timing):
            workdir_lib.keep_epochs(path, epoch)
        return epoch

    def _evaluate(self):
        from rs_keras.evaluation import evaluator

        return evaluator.evaluate(self.model, self.validation)

    def _check_finite(self, epoch, loss, name):
        if not math.isfinite(loss):
            sys.exit(
                f"error: The {name} must stay finite; a lower --learning_rate may "
                "help, and the last checkpoint is kept. "
                f"Received: {name}={loss} in epoch {epoch}"
            )

    def _epoch_end(self, epoch, step, logs, timing):
        self._check_finite(epoch, logs["loss"], "loss")
        start = time.perf_counter()
        found = self.found = self._evaluate()
        timing["validation_seconds"] = time.perf_counter() - start
        self._check_finite(epoch, found["losses"]["loss"], "validation loss")
        for name, value in found["losses"].items():
            if name != "distillation_raw":
                name = name if name == "loss" else f"loss_{name}"
                logs[f"val_{name}"] = value
        rows = {**found["resolutions"], "ensemble": found["ensemble"]}
        for key, row in rows.items():
            logs[f"val_top1_{key}"] = row["top1"]
            if row["top5"] is not None:
                logs[f"val_top5_{key}"] = row["top5"]
        print(
            f"epoch {epoch}: validation "
            + "  ".join(f"{key} {row['top1']:.3f}" for key, row in rows.items())
        )
        line = {"epoch": epoch, "step": step}
        workdir_lib.append_line(self.workdir.metrics, {**line, **logs})
        workdir_lib.append_line(self.workdir.timing, {**line, **timing})
        self.board.epoch(epoch, logs, self.build.ensemble_shares(self.model))
        self.state.save(
            self.workdir.checkpoints,
            self.model,
            epoch=epoch,
            step=step,
            data=self.data,
        )


def console():
    """Entry point of `rs-keras-train`."""
    flag_definitions.define_train_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

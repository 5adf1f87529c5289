"""Trains one network for several resolutions: python -m rs_keras.train --flagfile=...

SIGTERM and SIGINT (Ctrl-C) write a checkpoint and end the run; the same command goes on
with it, as after a crash.
"""

import contextlib
import math
import sys
import time

from rs_keras import config as config_lib
from rs_keras import flag_definitions
from rs_keras import workdir as workdir_lib
from rs_keras.training import interruption

# Images named on the screen; nonfinite.jsonl has all.
_NAMED = 8


def main():
    with interruption.Interruption() as stop, contextlib.ExitStack() as stack:
        with config_lib.mistakes():
            config = config_lib.train_config()
            workdir = workdir_lib.Workdir(config.workdir)
            workdir.check_resumable(config)
            stack.enter_context(workdir.locked())
            workdir.check_resumable(config)  # what it has by now
        try:
            with config_lib.mistakes():
                run = _Run(config, workdir, stop)
            run.train()
            run.finish()
        except interruption.Stopped as stopped:
            print(f"Interrupted. {_how_to_go_on(workdir)}", file=sys.stderr)
            sys.exit(stopped.exit_code)
        except BrokenPipeError:
            raise
        except OSError as error:
            sys.exit(
                "error: The files of the run cannot be written "
                f"({error.strerror or error}). {_how_to_go_on(workdir)} "
                f"Received: --workdir={workdir.path}"
            )


def _how_to_go_on(workdir):
    """What the same command would do, as a sentence."""
    from rs_keras.checkpoints import training_state

    kept = training_state.list_checkpoints(workdir.checkpoints)
    if not kept:
        return "Nothing is saved yet: the same command starts from the beginning."
    return f"The same command goes on from {kept[-1].name}."


class _Run:
    """One training run: prepared, trained step by step, finished."""

    def __init__(self, config, workdir, stop):
        # Here and not on top, so that a wrong flag is answered at once.
        from rs_keras import build
        from rs_keras.checkpoints import keras_file
        from rs_keras.checkpoints import training_state
        from rs_keras.data import pipeline
        from rs_keras.data import sources

        self.config = config
        self.workdir = workdir
        self.stop = stop
        self.build = build
        self.state = training_state
        build.set_up(config)
        self.source = sources.open_source(config.dataset, "train")
        validation = sources.open_source(config.dataset, "val")
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
        self.position = training_state.Position()
        self.skipped = []  # the steps that were not finite, counted from 1
        self._restore()
        if self.position == (0, 0) and config.init_from:
            for sentence in keras_file.initialize_from(self.model, config.init_from):
                print(f"init_from: {sentence}")
        for sentence in workdir.start(config):
            print(f"Going on with another flag: {sentence}")
        print(
            f"{self.source.num_examples} training and {validation.num_examples} "
            f"validation images, {len(self.source.class_names)} classes, "
            f"{self.steps} steps an epoch"
        )

    def train(self):
        from rs_keras.data import pipeline
        from rs_keras.training import loop
        from rs_keras.training import tensorboard

        if self.position.epoch == self.config.epochs:
            return
        self.board = tensorboard.Writer(self.workdir.tensorboard)
        batches = self.build.train_batches(
            self.config, self.source, start=self.position
        )
        damaged = pipeline.DamagedImage
        with config_lib.mistakes(damaged), pipeline.damaged_images():
            if self.position == (0, 0):
                self.board.images(next(iter(batches))[0])
            with self.stop.deferred():
                loop.train(
                    self.model,
                    batches,
                    steps=self.steps,
                    epochs=self.config.epochs,
                    start=self.position,
                    on_step=self._step_end,
                    on_epoch_end=self._epoch_end,
                )

    def finish(self):
        """Writes model.keras and results.json and prints the table."""
        from rs_keras.evaluation import report

        model = self.model
        sides = model.resolutions * model.views
        found = self.found or self._evaluate()
        results = self.build.results(model, found, model.keys, sides)
        temporary = self.workdir.path / ".model.tmp.keras"
        model.save(temporary)
        workdir_lib.rename(temporary, self.workdir.model)
        workdir_lib.write_json(self.workdir.results, results)
        print(report.table(results))
        print(f"Written to {self.workdir.path}: model.keras, results.json")

    def _restore(self):
        """Sets the run back to its newest whole checkpoint, if it has one."""
        for path in reversed(self.state.list_checkpoints(self.workdir.checkpoints)):
            try:
                manifest = self.state.restore(path, self.model)
            except self.state.DamagedCheckpoint:
                aside = self.state.set_aside(path)
                print(
                    f"warning: {path} is passed over: it is damaged (it is now called "
                    f"{aside.name})",
                    file=sys.stderr,
                )
                continue
            if manifest["data"]["dataset"] != self.data:
                raise ValueError(
                    "The dataset must be that of the run: its classes or its number "
                    f"of images have changed. Received: --dataset={self.config.dataset}"
                )
            self.position = self.state.Position(manifest["epoch"], manifest["step"])
            self.skipped = manifest["data"]["skipped_steps"]
            break
        epoch, step = self.position
        if epoch + (step > 0) > self.config.epochs:
            raise ValueError(
                f"--epochs must be at least {epoch + (step > 0)}, since the run has "
                f"come that far. Received: --epochs={self.config.epochs}"
            )
        if step:
            print(f"Going on after step {step} of {self.steps} of epoch {epoch + 1}")
        elif epoch:
            print(f"Going on after epoch {epoch} of {self.config.epochs}")
        for path in (self.workdir.metrics, self.workdir.timing):
            workdir_lib.keep_lines(path, "epoch", epoch)
        workdir_lib.keep_lines(self.workdir.nonfinite, "step", self._total_steps())

    def _total_steps(self):
        return self.position.epoch * self.steps + self.position.step

    def _save(self, score=None):
        self.state.save(
            self.workdir.checkpoints,
            self.model,
            self.position,
            data={"dataset": self.data, "skipped_steps": self.skipped},
            score=score,
        )

    def _evaluate(self):
        from rs_keras.evaluation import evaluator

        return evaluator.evaluate(
            self.model, self.validation, on_batch=self._check_stop
        )

    def _check_stop(self):
        """Saves and stops if somebody wants it."""
        if self.stop.wished:
            self._save()
            self.stop.check()

    def _step_end(self, epoch, step, logs):
        self.position = self.state.Position(epoch, step)
        skipped = sum(x > epoch * self.steps for x in self.skipped)
        if logs.get("skipped_steps", 0) > skipped:
            self._not_finite(epoch, step)
        if step < self.steps and not self._total_steps() % self.config.checkpoint_every:
            self._save()
            self.stop.check()
        self._check_stop()

    def _not_finite(self, epoch, step):
        """What follows a step whose loss or gradients were not finite."""
        from rs_keras.data import pipeline

        self.skipped.append(self._total_steps())
        images = pipeline.images_of_step(
            self.source,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            step=step - 1,
        )
        line = {"step": self._total_steps(), "epoch": epoch + 1, "images": images}
        workdir_lib.append_line(self.workdir.nonfinite, line)
        where = f"step {self._total_steps()} (step {step} of epoch {epoch + 1})"
        named = "\n".join(images[:_NAMED])
        if len(images) > _NAMED:
            named += f"\nand {len(images) - _NAMED} more"
        allowed = self.config.on_nan == "skip" and self.config.max_skipped_steps
        if len(self.skipped) <= allowed:
            print(
                f"warning: {where} is skipped: its loss or a gradient is not finite. "
                f"{len(self.skipped)} of {allowed} that may be skipped. Its images:\n"
                f"{named}",
                file=sys.stderr,
            )
            return
        rule = "must be finite; --on_nan=skip would pass over such steps"
        if allowed:
            rule = f"must be finite but for {allowed} steps (--max_skipped_steps)"
        sys.exit(
            f"error: Loss and gradients {rule}; a lower --learning_rate may help. "
            f"{_how_to_go_on(self.workdir)} Received: {where}, which was not applied. "
            f"Its images, also in {self.workdir.nonfinite}:\n{named}"
        )

    def _epoch_end(self, epoch, logs, timing):
        logs.pop("skipped_steps", None)
        start = time.perf_counter()
        found = self.found = self._evaluate()
        timing["validation_seconds"] = time.perf_counter() - start
        loss = found["losses"]["loss"]
        if not math.isfinite(loss):
            sys.exit(
                "error: The validation loss must stay finite; a lower --learning_rate "
                f"may help. {_how_to_go_on(self.workdir)} "
                f"Received: {loss} after epoch {epoch}"
            )
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
        self.position = self.state.Position(epoch)
        line = {"epoch": epoch, "step": self._total_steps()}
        if self.config.on_nan == "skip":
            first = (epoch - 1) * self.steps
            line["skipped_steps"] = sum(x > first for x in self.skipped)
        workdir_lib.append_line(self.workdir.metrics, {**line, **logs})
        workdir_lib.append_line(self.workdir.timing, {**line, **timing})
        self.board.epoch(epoch, logs, self.build.ensemble_shares(self.model))
        tops = [row["top1"] for row in found["resolutions"].values()]
        self._save(score=sum(tops) / len(tops))
        self.stop.check()


def console():
    """Entry point of `rs-keras-train`."""
    flag_definitions.define_train_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

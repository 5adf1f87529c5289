"""One training run: prepared, trained step by step, saved, finished."""

import math
import sys
import time

from rs_keras import build
from rs_keras import config as config_lib
from rs_keras import model_card
from rs_keras import nonfinite
from rs_keras import workdir as workdir_lib
from rs_keras.checkpoints import keras_file
from rs_keras.checkpoints import training_state
from rs_keras.data import damage
from rs_keras.data import pipeline
from rs_keras.data import sources
from rs_keras.evaluation import evaluator
from rs_keras.evaluation import report
from rs_keras.training import loop
from rs_keras.training import tensorboard


class Run:
    """One training run.

    Several processes may train together: each has a `Run`, one of them writes.

    Args:
        config: `TrainConfig`.
        workdir: `Workdir`, locked by the process that writes.
        stop: `Interruption`.
        devices: `Devices`.
    """

    def __init__(self, config, workdir, stop, devices):
        self.config = config
        self.workdir = workdir
        self.stop = stop
        self.devices = devices
        self.writes = devices.task.writes
        devices.check_batch_size(config.batch_size, config.accumulate)
        build.set_up(config)
        self.keras_model = build.keras_model(config, workdir)
        self.source, validation = sources.open_splits(
            config.dataset, scan=config.scan, on_bad_image=config.on_bad_image
        ).values()
        self.bad = (self.source.skipped, validation.skipped)
        self.steps = pipeline.steps_per_epoch(self.source, config.batch_size)
        with devices.scope():
            self.model = self._new_model()
        # Of several devices one evaluates; with several processes one of each.
        self.whole = self._new_model() if devices.distributed else self.model
        self.validation = pipeline.val_dataset(
            validation,
            config.resolutions,
            batch_size=config.batch_size,
            views=config.views,
            preprocessing=config.preprocessing,
        )
        self.found = None  # what the last validation found
        self.data = {
            "classes": list(self.source.class_names),
            "images": self.source.num_examples,
            "files": self.source.fingerprint,
            "steps": self.steps,
            "validation": [validation.num_examples, validation.fingerprint],
        }
        devices.check_same(f"{config.flagfile()} {self.data}")
        self.position = training_state.Position()
        self.skipped = []  # the steps that were not finite, counted from 1
        self._restore()
        if self.position == (0, 0):
            for sentence in build.initialize(self.model, config, self.keras_model):
                self._say(sentence)
        if self.writes:
            for sentence in workdir.start(config):
                print(f"Going on with another flag: {sentence}")
        shared = f", on {devices.replicas} devices" if devices.distributed else ""
        self._say(
            f"{self.source.num_examples} training and {validation.num_examples} "
            f"validation images, {len(self.source.class_names)} classes, "
            f"{self.steps} steps an epoch{shared}"
        )

    def train(self):
        """Trains until the last epoch is done, or somebody wants to stop."""
        if self.position.epoch == self.config.epochs:
            return
        damaged = damage.damaged_images(
            lambda: build.next_files(self.config, self.source, self.position)
        )
        with config_lib.mistakes(damage.DamagedImage), damaged:
            if self.writes:
                self.board = tensorboard.Writer(self.workdir.tensorboard)
                if self.position == (0, 0):
                    images, _ = next(self._batches().as_numpy_iterator())
                    self.board.images(self.model.branches(images))
            batches = self.devices.batches(self._batches, self.config.batch_size)
            self.batches = iter(batches)  # kept: of several processes it has to stay
            with self.stop.deferred():
                loop.train(
                    self.model,
                    self.devices.step(self.model),
                    self.batches,
                    batch_size=self.config.batch_size,
                    steps=self.steps,
                    epochs=self.config.epochs,
                    start=self.position,
                    on_step=self._step_end,
                    on_epoch_end=self._epoch_end,
                    wish=lambda: self.stop.wished,
                    report=self._say,
                )

    def finish(self):
        """Writes model.keras and results.json and prints the table."""
        found = self.found or self._evaluate()
        if self.writes:
            self._write_results(found)
        self.devices.agree((0,))  # no process leaves before the others are done

    def _write_results(self, found):
        model = self.whole
        sides = model.resolutions * model.views
        results = build.results(model, found, model.keys, sides, self.bad)
        keras_file.save(model, self.workdir.model)
        counts = {"train": self.data["images"], "val": self.data["validation"][0]}
        workdir_lib.write_json(self.workdir.data, {"images": counts})
        workdir_lib.write_json(self.workdir.results, results)
        print(report.table(results))
        print(f"Written to {self.workdir.path}: model.keras, results.json")
        print(model_card.write_at_end(self.workdir))

    def _new_model(self):
        classes = self.source.class_names
        model = build.classifier(self.config, classes, self.keras_model)
        build.compile_model(model, self.config, self.steps)
        return model

    def _batches(self, shard_batch=None, shard=(0, 1)):
        return build.train_batches(
            self.config,
            self.source,
            start=self.position,
            shard=shard,
            shard_batch=shard_batch,
        )

    def _say(self, text):
        if self.writes:
            print(text)

    def _restore(self):
        """Sets the run back to its newest whole checkpoint, if it has one."""
        found, contents = training_state.Position(), None
        if self.writes:
            found, contents = self._newest()
        position = training_state.Position(*self.devices.agree(found))
        if position != (0, 0):
            path = self.workdir.checkpoints / training_state.name(position)
            manifest = training_state.restore(path, self.model, contents)
            saved = manifest["data"]["dataset"]  # earlier versions said less
            if any(self.data[key] != value for key, value in saved.items()):
                raise ValueError(
                    "The dataset must be that of the run: its classes or its images "
                    f"have changed. Received: --dataset={self.config.dataset}"
                )
            self.skipped = manifest["data"]["skipped_steps"]
        elif self.writes:
            self.workdir.check_nothing_lost()
        self.position = position
        epoch, step = position
        if epoch + (step > 0) > self.config.epochs:
            raise ValueError(
                f"--epochs must be at least {epoch + (step > 0)}, since the run has "
                f"come that far. Received: --epochs={self.config.epochs}"
            )
        if step:
            self._say(
                f"Going on after step {step} of {self.steps} of epoch {epoch + 1}"
            )
        elif epoch:
            self._say(f"Going on after epoch {epoch} of {self.config.epochs}")
        if self.writes:
            for path in (self.workdir.metrics, self.workdir.timing):
                workdir_lib.keep_lines(path, "epoch", epoch)
            total = self._total_steps()
            workdir_lib.keep_lines(self.workdir.nonfinite, "step", total)

    def _newest(self):
        """Position and contents of the newest whole checkpoint; moves damaged ones."""
        for path in reversed(training_state.list_checkpoints(self.workdir.checkpoints)):
            try:
                contents = _, manifest = training_state.read(path)
                position = manifest["epoch"], manifest["step"]
                return training_state.Position(*position), contents
            except training_state.DamagedCheckpoint:
                aside = training_state.set_aside(path)
                print(
                    f"warning: {path} is passed over: it is damaged (it is now called "
                    f"{aside.name})",
                    file=sys.stderr,
                )
        return training_state.Position(), None

    def _total_steps(self):
        return self.position.epoch * self.steps + self.position.step

    def _save(self, score=None):
        try:
            arrays = training_state.arrays(self.model, self.devices.read)
        except FloatingPointError as error:
            self._blown_up(str(error))
        if self.writes:
            training_state.save(
                self.workdir.checkpoints,
                arrays,
                self.position,
                data={"dataset": self.data, "skipped_steps": self.skipped},
                score=score,
            )

    def _blown_up(self, text):
        kept = training_state.how_to_go_on(self.workdir.checkpoints)
        advice = f"A lower --learning_rate may help. {kept} Received: "
        sys.exit(f"error: {text.replace('Received: ', advice, 1)}")

    def _evaluate(self):
        if self.whole is not self.model:
            self.devices.copy_state(self.model, self.whole)
        return evaluator.evaluate(self.whole, self.validation, on_batch=self._heard)

    def _heard(self):
        """Saves and stops if somebody wants it; several processes do so at a step."""
        if self.stop.wished and self.devices.task.workers == 1:
            self._save()
            self.stop.stop()

    def _step_end(self, epoch, step, logs, wished):
        self.position = training_state.Position(epoch, step)
        skipped = sum(x > epoch * self.steps for x in self.skipped)
        if logs.get("skipped_steps", 0) > skipped:
            self._not_finite()
        due = self._total_steps() % self.config.checkpoint_every == 0
        if wished or (due and step < self.steps):
            self._save()
        if wished:
            self.stop.stop()

    def _not_finite(self):
        """What follows a step whose loss or gradients were not finite."""
        total, (epoch, step) = self._total_steps(), self.position
        self.skipped.append(total)
        found = build.images_of_step(self.config, self.source, epoch, step - 1)
        images = nonfinite.images(found)
        if self.writes:
            line = {"step": total, "epoch": epoch + 1, "images": images}
            workdir_lib.append_line(self.workdir.nonfinite, line)
        where = f"step {total} (step {step} of epoch {epoch + 1})"
        named = nonfinite.named(images, self.workdir.nonfinite)
        warning = nonfinite.warning(self.config, len(self.skipped), where)
        if warning is None:
            self._blown_up(
                f"{nonfinite.rule(self.config)} Received: {where}, which was not "
                f"applied. Its images:\n{named}"
            )
        self._say(f"{warning} Its images:\n{named}")

    def _epoch_end(self, epoch, logs, timing):
        logs.pop("skipped_steps", None)
        start = time.perf_counter()
        found = self.found = self._evaluate()
        timing["validation_seconds"] = time.perf_counter() - start
        loss = found["losses"]["loss"]
        if not math.isfinite(loss):
            self._blown_up(
                f"The validation loss must be finite. Received: {loss} after epoch "
                f"{epoch}"
            )
        rows = {**found["resolutions"], "ensemble": found["ensemble"]}
        self._say(
            f"epoch {epoch}: validation "
            + "  ".join(f"{key} {row['top1']:.3f}" for key, row in rows.items())
        )
        self.position = training_state.Position(epoch)
        if self.writes:
            self._write_epoch(epoch, {**logs, **report.logs(found)}, timing)
        tops = [row["top1"] for row in found["resolutions"].values()]
        self._save(score=sum(tops) / len(tops))

    def _write_epoch(self, epoch, logs, timing):
        line = {"epoch": epoch, "step": self._total_steps()}
        if self.config.on_nan == "skip":
            first = (epoch - 1) * self.steps
            line["skipped_steps"] = sum(x > first for x in self.skipped)
        workdir_lib.append_line(self.workdir.metrics, {**line, **logs})
        workdir_lib.append_line(self.workdir.timing, {**line, **timing})
        self.board.epoch(epoch, logs, build.ensemble_shares(self.whole))

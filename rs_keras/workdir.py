"""The files of a run: written to a temporary name and renamed, never half there."""

import json
import os
import pathlib

from rs_keras import train_config


class Workdir:
    """Paths and small files of one run's directory.

    Holds `flags.cfg`, `metrics.jsonl` (a line an epoch, no clock values),
    `timing.jsonl`, `checkpoints/`, `tensorboard/`, `model.keras` and `results.json`.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.flags = self.path / "flags.cfg"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.model = self.path / "model.keras"
        self.results = self.path / "results.json"

    def has_run(self):
        return self.flags.exists()

    def check_resumable(self, config):
        """Raises ValueError unless `config` may run here; writes nothing.

        Args:
            config: has `resume`, `differences(flagfile)`.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(
                f"--workdir must be a directory. Received: --workdir={self.path}"
            )
        if not self.has_run():
            for path in (self.checkpoints, self.metrics, self.model, self.results):
                if path.exists():
                    raise ValueError(
                        "A workdir must be new, or hold a run with its flags.cfg. "
                        f"Received: --workdir={self.path}, which has {path.name}"
                    )
            if config.resume == "must":
                raise ValueError(
                    "--resume=must needs a workdir with a run. "
                    f"Received: --workdir={self.path}"
                )
            return
        if config.resume == "never":
            raise ValueError(
                "The workdir already has a run; choose another, or go on with "
                f"--resume=auto. Received: --workdir={self.path} --resume=never"
            )
        differences = config.differences(self.flags.read_text())
        # Without a finished epoch nothing is lost by starting anew.
        if differences and (self.metrics.exists() or self.model.exists()):
            raise ValueError(
                "The workdir belongs to a run with other flags; choose another. "
                f"Received: --workdir={self.path}, where " + "; ".join(differences)
            )

    def start(self, config):
        """Makes the directory and writes flags.cfg."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.has_run() or config.differences(self.flags.read_text()):
            write_text(self.flags, config.flagfile())

    def flag(self, name, default=None):
        """A flag of the run, as text; the default where the flag is newer."""
        values = train_config.flag_values(self.flags.read_text())
        if name not in values and default is not None:
            return default
        if name not in values:
            raise ValueError(
                f"The run's flags must have --{name}. Received: {self.flags}"
            )
        return values[name]

    def trained_model(self):
        """Path of the finished model; ValueError where there is none."""
        if not self.model.exists():
            what = "which is not there"
            if self.has_run():
                what = "whose run is unfinished; its training command goes on with it"
            elif self.path.exists():
                what = "which has none"
            raise ValueError(
                "--workdir must hold a finished run (model.keras). "
                f"Received: --workdir={self.path}, {what}"
            )
        return self.model


def write_text(path, text):
    """Writes a file so that it is there whole or not at all."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append_line(path, value):
    """Appends one JSON line."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value, allow_nan=False) + "\n")


def keep_epochs(path, epoch):
    """Cuts the lines of a .jsonl after `epoch`, and a line that was cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["epoch"] <= epoch:
                kept.append(line + "\n")
        except ValueError:
            break
    write_text(path, "".join(kept))

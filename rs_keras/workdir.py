"""The files of a run: written to a temporary name and renamed, never half there."""

import contextlib
import json
import os
import pathlib
import shutil
import socket

from rs_keras import train_config


class Workdir:
    """Paths and small files of one run's directory.

    Holds `flags.cfg`, `metrics.jsonl` (a line an epoch, no clock values),
    `timing.jsonl`, `nonfinite.jsonl` (a line for each step that blew up),
    `checkpoints/`, `tensorboard/`, `model.keras`, `results.json`, `data.json` (how
    many images there were) and `model_card.md`; `network.keras` is the file that
    --model names, if it names one.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.flags = self.path / "flags.cfg"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.nonfinite = self.path / "nonfinite.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.network = self.path / "network.keras"
        self.model = self.path / "model.keras"
        self.results = self.path / "results.json"
        self.data = self.path / "data.json"

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
        if differences and self.has_state():
            raise ValueError(
                "The workdir belongs to a run with other flags; choose another. "
                f"Received: --workdir={self.path}, where " + "; ".join(differences)
            )

    def has_state(self):
        """Whether anything would be lost by starting anew."""
        saved = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        return saved or self.metrics.exists() or self.model.exists()

    def check_nothing_lost(self):
        """Raises ValueError if starting anew would overwrite results.

        One line of metrics.jsonl is none: it is written before its checkpoint.
        """
        text = self.metrics.read_text() if self.metrics.exists() else ""
        if text.count("\n") > 1 or self.model.exists():
            raise ValueError(
                "The workdir has results, but no checkpoint that can be read: choose "
                f"another, or remove this one. Received: --workdir={self.path}"
            )

    @contextlib.contextmanager
    def locked(self):
        """Keeps every other process from training here; makes the directory.

        The lock goes with the process, however it ends. A directory in which no run was
        started is removed again.

        Raises:
            ValueError: another process trains here.
        """
        import fcntl  # not on Windows, where the other commands can do without

        missing = [p for p in (self.path, *self.path.parents) if not p.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / ".lock"
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise ValueError(
                    "The workdir is in use: one process at a time trains in it. "
                    f"Received: --workdir={self.path}, held by {file.read() or '?'}"
                ) from error
            if not path.exists() or not os.path.samestat(
                os.fstat(file.fileno()), path.stat()
            ):
                raise ValueError(
                    "The workdir is in use: another process has just ended in it. "
                    f"Received: --workdir={self.path}"
                )
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                if not self.has_run():
                    path.unlink(missing_ok=True)
                    with contextlib.suppress(OSError):  # it is not empty
                        for directory in missing:
                            directory.rmdir()

    def start(self, config):
        """Writes flags.cfg; returns sentences on what it said differently."""
        self.path.mkdir(parents=True, exist_ok=True)
        if config.own_network and not self.has_state():
            temporary = self.path / ".network.keras.tmp"
            shutil.copyfile(config.model, temporary)
            rename(temporary, self.network)
        before = self.flags.read_text() if self.has_run() else None
        if before != config.flagfile():
            write_text(self.flags, config.flagfile())
        return config.changes(before) if before and self.has_state() else []

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

    def trained_model(self, flag="workdir"):
        """Path of the finished model; ValueError where there is none.

        Args:
            flag: that names the directory, for the message.
        """
        if not self.model.exists():
            what = "which is not there"
            if self.has_run():
                what = "whose run is unfinished; its training command goes on with it"
            elif self.path.exists():
                what = "which has none"
            raise ValueError(
                f"--{flag} must hold a finished run (model.keras). "
                f"Received: --{flag}={self.path}, {what}"
            )
        return self.model


def write_text(path, text):
    """Writes a file so that it is there whole or not at all."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    rename(temporary, path)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def rename(temporary, path):
    """Gives a file its name once its content is on the disk."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def append_line(path, value):
    """Appends one JSON line, on the disk when this returns."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def keep_lines(path, name, last):
    """Cuts the lines of a .jsonl whose `name` is above `last`, and one cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)[name] <= last:
                kept.append(line + "\n")
        except ValueError:
            break
    write_text(path, "".join(kept))

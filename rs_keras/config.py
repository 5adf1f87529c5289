"""The flags of the command lines, and how a user's mistake ends.

The only module that reads absl flags: everything else takes plain arguments.
"""

import contextlib
import dataclasses
import logging
import os
import re
import sys

from absl import app
from absl import flags

from rs_keras import flag_definitions
from rs_keras import resolutions as resolutions_lib
from rs_keras import tool_flag_definitions
from rs_keras import train_config as train_config_lib


def train_config():
    """The parsed flags as a `TrainConfig`; ValueError where they contradict."""
    require("dataset", "workdir")
    values = {
        field.name: getattr(flags.FLAGS, field.name)
        for field in dataclasses.fields(train_config_lib.TrainConfig)
    }
    values["resolutions"] = resolutions_lib.check_resolutions(
        integers("resolutions"), views=values["views"]
    )
    values["area"] = _numbers("area", float, "numbers")
    values["decay_epochs"] = integers("decay_epochs")
    for name in ("weight_bits", "activation_bits", "rest_bits"):
        values[name] = int(values[name])
    return train_config_lib.TrainConfig(**values)


def check_json():
    """Raises ValueError unless --json, if given, can be written to."""
    path = flags.FLAGS.json
    if path is None:
        return
    directory, name = os.path.split(path)
    if os.path.isdir(path) or not os.path.isdir(directory or "."):
        raise ValueError(
            f"--json must be a file in a directory that exists. Received: --json={path}"
        )
    runs_own = os.path.exists(os.path.join(directory, "flags.cfg")) and name in (
        "results.json",
        "data.json",
    )
    if os.path.exists(path) and (runs_own or not name.endswith(".json")):
        raise ValueError(
            "--json must be a new file, or replace a .json file that is none of a "
            f"run's own. Received: --json={path}"
        )


def check_json_is_apart(*outputs):
    """Raises ValueError if --json names one of the files that a command writes."""
    path = flags.FLAGS.json
    if path and os.path.abspath(path) in map(os.path.abspath, outputs):
        raise ValueError(f"--json must not be the output. Received: --json={path}")


def check_plot(name="plot"):
    """Raises ValueError unless the picture that a flag names, if any, can be drawn."""
    check_file(name, (".png", ".svg"))


def check_file(name, suffixes):
    """Raises ValueError unless the file that a flag names, if any, can be written."""
    path = getattr(flags.FLAGS, name)
    if path is None:
        return
    directory = os.path.dirname(path) or "."
    if (
        not path.endswith(suffixes)
        or not os.path.isdir(directory)
        or os.path.isdir(path)
    ):
        raise ValueError(
            f"--{name} must be a {' or '.join(suffixes)} file in a directory that "
            f"exists. Received: --{name}={path}"
        )


def check_overwrite():
    """Raises ValueError if --output is there, and --overwrite is not given."""
    path = flags.FLAGS.output
    if os.path.exists(path) and not flags.FLAGS.overwrite:
        raise ValueError(
            "--output exists; choose another, or --overwrite. "
            f"Received: --output={path}"
        )


def values():
    """The parsed flags, as attributes."""
    return flags.FLAGS


def require(*names):
    """Raises ValueError unless each of the flags is given."""
    for name in names:
        if getattr(flags.FLAGS, name) is None:
            raise ValueError(f"--{name} is needed. Received: no --{name}")


def integers(name):
    """A flag of comma-separated integers as a tuple; None if it is not given."""
    return _numbers(name, int, "integers")


def resolutions():
    """--resolutions as a tuple, descending; None if it is not given."""
    found = integers("resolutions")
    return None if found is None else resolutions_lib.check_resolutions(found)


def run(main):
    """Parses the command line and calls `main()`.

    A flag that absl refuses, or a command line with words that are no flags, ends in
    one sentence and exit code 2.
    """
    # TensorFlow's start-up notes are no news to users; errors still come through, but
    # for that of looking for a GPU where there is none.
    gpu = any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if gpu else "3")
    # Nor is its advice on functions that are traced several times, as for each of
    # several networks.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stdout.reconfigure(line_buffering=True)

    def parse(argv):
        if "--help" in argv[1:]:
            print(sys.modules["__main__"].__doc__)
            for module in (flag_definitions, tool_flag_definitions):
                print(flags.FLAGS.module_help(module), end="")
            print()
            sys.exit(0)
        with mistakes():
            try:
                rest = flags.FLAGS(argv)[1:]
            except flags.Error as error:
                raise ValueError(_flag_error(str(error))) from error
            if rest:
                raise ValueError(
                    f"Every argument must be a --flag. Received: {' '.join(rest)}"
                )
        return argv[:1]

    def interruptible(argv):
        try:
            main()
        except KeyboardInterrupt:
            print("Interrupted. The same command starts again.", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:
            # Who reads the output (`head`, say) has read enough: end as SIGPIPE does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)

    app.run(interruptible, flags_parser=parse)


@contextlib.contextmanager
def mistakes(kinds=(ValueError, OSError)):
    """Turns a user's mistake raised within into one sentence and exit code 2.

    So does a backend of Keras that is asked for and not installed.

    Args:
        kinds: the exception classes that are mistakes.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        backend = os.environ.get("KERAS_BACKEND")
        if error.name != backend:
            raise
        text = f"KERAS_BACKEND={backend} needs {backend}, which is not installed"
        _refuse(f"{text}. Received: KERAS_BACKEND={backend}")
    except kinds as error:
        text = " ".join(str(error).split())
        if "Received: " not in text:
            text += f". Received: {' '.join(sys.argv[1:])}"
        _refuse(text)


def _refuse(text):
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def _flag_error(text):
    """absl's message as a sentence that names the flag and nothing else."""
    text = text.removeprefix("ERROR:: ").replace(" ?", "?")
    for kind, what in (("int", "an integer"), ("float", "a number")):
        match = re.match(rf"flag --(\w+)=(.*?): .*(?:literal for|to) {kind}\b", text)
        if match:
            name, value = match.groups()
            return f"--{name} must be {what}. Received: --{name}={value}"
    match = re.match(r"flag (--\w+=.*?): (.*)", text, re.DOTALL)
    if match:
        return f"{match[2]}. Received: {match[1]}"
    return text


def _numbers(name, kind, what):
    values = getattr(flags.FLAGS, name)
    try:
        return values and tuple(kind(v) for v in values)
    except ValueError as error:
        raise ValueError(
            f"--{name} must be {what} with commas between. "
            f"Received: --{name}={train_config_lib.as_text(values)}"
        ) from error

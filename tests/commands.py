"""Running the command lines as a user does, in processes of their own.

`run` and what is built on it fork a process that has imported TensorFlow, which saves
the seconds of each import; `run_python_m` starts Python as a user does. Each command is
run in both ways, and tests/test_commands.py compares the two.
"""

import atexit
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--model=resnet18",
    "--width=0.125",
    "--resolutions=48,32",
    "--batch_size=8",
    "--learning_rate=0.02",
    "--threads=2",
)
# Runs a module as `python -m` does, with something in the package changed before.
CHANGED = (
    "{}\nimport runpy\nrunpy.run_module({!r}, run_name='__main__', alter_sys=True)"
)


def environment():
    """The environment, without what is set by pytest, and by PyTorch when it runs.

    No command reads either.
    """
    others = ("PYTEST_", "TORCH")
    return {k: v for k, v in os.environ.items() if not k.startswith(others)}


# That of the user: conftest.py is read before anything that imports TensorFlow.
_USERS = environment()


def run_python_m(module, *arguments, cwd=ROOT, before=""):
    """Runs `python -m module arguments`.

    Args:
        before: source that is executed first, to change something in the package.
    """
    started = ("-c", CHANGED.format(before, module)) if before else ("-m", module)
    return subprocess.run(
        [sys.executable, *started, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def start(program, *arguments, **environment):
    """Starts a program of Python's, given as its source, beside the tests."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(module, *arguments, cwd=ROOT, before=""):
    """As `run_python_m`, in a process that is forked where it can be."""
    # Elsewhere a fork after the import is not known to be safe.
    if sys.platform != "linux" or fork_server().differences(environment()):
        return run_python_m(module, *arguments, cwd=cwd, before=before)
    return fork_server().run(module, *arguments, cwd=cwd, before=before)


@functools.cache
def fork_server():
    return ForkServer()


class ForkServer:
    """The tests' end of tests/fork_server.py; it ends with them."""

    def __init__(self):
        self._channel, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env=_USERS,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._answers = self._channel.makefile("r", encoding="utf-8")
        atexit.register(process.wait)
        atexit.register(self._channel.close)
        atexit.register(self._answers.close)
        self._environment = self._answer()

    def differences(self, environment):
        """The names of variables that are others than in its processes.

        Importing TensorFlow sets variables: here, unless no test has done so, and
        there. Any other difference may be one that is read at the import.
        """
        ours, theirs = environment.items(), self._environment.items()
        return sorted({name for name, _ in (_USERS.items() - ours) | (ours - theirs)})

    def run(self, module, *arguments, cwd=ROOT, before=""):
        with tempfile.TemporaryDirectory() as folder:
            out, err = pathlib.Path(folder, "stdout"), pathlib.Path(folder, "stderr")
            for path in (out, err):
                path.touch()
            request = {
                "module": module,
                "arguments": [str(argument) for argument in arguments],
                "cwd": str(cwd),
                "before": before,
                "stdout": str(out),
                "stderr": str(err),
            }
            self._channel.sendall(f"{json.dumps(request)}\n".encode())
            code = self._answer()
            return subprocess.CompletedProcess(
                (module, *arguments), code, out.read_text(), err.read_text()
            )

    def _answer(self):
        line = self._answers.readline()
        if not line:
            raise RuntimeError("tests/fork_server.py has ended; its stderr says why")
        return json.loads(line)


def succeeds(*arguments, run=run):
    found = run(*arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def refuses(sentence, *arguments):
    found = run(*arguments)
    assert found.returncode == 2, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    message = found.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ") and sentence in message, found.stderr
    assert "Received: " in message

"""Running the command lines as a user does, in processes of their own."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--model=resnet18",
    "--width=0.125",
    "--resolutions=48,32",
    "--batch_size=8",
    "--learning_rate=0.02",
    "--threads=2",
)


def run(module, *arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def succeeds(*arguments):
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

"""A run that is stopped, killed or damaged ends bit for bit as if it had not been."""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import commands


def command(photos, workdir, *flags):
    return (
        sys.executable,
        "-m",
        "rs_keras.train",
        *commands.TINY,
        f"--dataset=folder:{photos}",
        f"--workdir={workdir}",
        "--checkpoint_every=2",
        *flags,
    )


@contextlib.contextmanager
def started(arguments):
    with subprocess.Popen(
        arguments,
        cwd=commands.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell have inherited to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def signalled(arguments, number, line):
    """(exit code, stderr) of a run that gets a signal when it prints such a line."""
    with started(arguments) as process:
        for text in process.stdout:
            if text.startswith(line):
                process.send_signal(number)
                break
        _, errors = process.communicate(timeout=200)
    assert "Traceback" not in errors
    return process.returncode, errors


def writing(workdir):
    """Whether a checkpoint is half there, on its way in or out."""
    return any((workdir / "checkpoints").glob(".epoch-*.tmp"))


def killed_within_a_write(arguments, workdir, skip=0):
    """Kills a run while it writes a checkpoint; True if that is what it hit.

    Args:
        skip: writes that may come to their end before.
    """
    with started(arguments) as process:
        seen = writing(workdir)  # what the last one left
        while process.poll() is None:
            now = writing(workdir)
            if now and not seen:
                skip -= 1
                if skip < 0:
                    time.sleep(random.random() * 0.004)
                    break
            seen = now
            time.sleep(0.0002)
        process.kill()
        process.communicate()
    return process.returncode == -signal.SIGKILL and writing(workdir)


def assert_same_end(whole, other):
    for name in ("metrics.jsonl", "results.json"):
        assert (other / name).read_text() == (whole / name).read_text(), name
    last = [sorted((d / "checkpoints").glob("epoch-????"))[-1] for d in (whole, other)]
    assert last[0].name == last[1].name
    with (
        np.load(last[0] / "arrays.npz") as one,
        np.load(last[1] / "arrays.npz") as two,
    ):
        assert set(one.files) == set(two.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_run_that_is_stopped_killed_and_damaged_ends_alike(
    finished, photos, tmp_path
):
    workdir = tmp_path / "stopped"
    arguments = command(photos, workdir, "--epochs=5")
    code, errors = signalled(arguments, signal.SIGTERM, "epoch 2/5")
    assert code == 0, errors
    assert "Interrupted. The same command goes on from epoch-000" in errors
    assert not (workdir / "model.keras").exists()
    killed_within_a_write(arguments, workdir, skip=1)
    damaged = workdir / "checkpoints" / "epoch-0004"
    damaged.mkdir(exist_ok=True)
    (damaged / "manifest.json").write_text("")
    code, errors = signalled(arguments, signal.SIGINT, "epoch 4/5")
    assert code == 130, errors
    assert f"{damaged} is passed over: it is damaged" in errors
    again = subprocess.run(
        arguments, cwd=commands.ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "Going on after " in again.stdout
    assert_same_end(finished, workdir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "kills"),
    [
        ((), 20),
        (("--weight_bits=2", "--activation_bits=2"), 4),
        (("--precision=mixed_float16",), 4),
    ],
)
def test_kills_at_any_moment_leave_no_trace(photos, tmp_path, flags, kills):
    """As many kills within a write of a checkpoint as at random moments."""
    flags = ("--epochs=4", "--checkpoint_every=1", *flags)
    whole = tmp_path / "whole"
    start = time.monotonic()
    subprocess.run(command(photos, whole, *flags), cwd=commands.ROOT, check=True)
    duration = time.monotonic() - start
    hits, runs, generator = {"write": 0, "random": 0}, 0, random.Random(0)
    while any(count < kills for count in hits.values()):
        runs += 1
        workdir = tmp_path / f"run-{runs}"
        arguments = command(photos, workdir, *flags)
        while not (workdir / "results.json").exists():
            if hits["write"] < kills and generator.random() < 0.6:
                skip = generator.randrange(5)
                hits["write"] += killed_within_a_write(arguments, workdir, skip)
            elif hits["random"] < kills:
                with started(arguments) as process:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(duration * generator.uniform(0.3, 1))
                    process.kill()
                    process.communicate()
                hits["random"] += process.returncode == -signal.SIGKILL
            else:
                subprocess.run(arguments, cwd=commands.ROOT, check=True)
        assert_same_end(whole, workdir)
        shutil.rmtree(workdir)
    print(json.dumps({"flags": flags, "kills": hits, "runs": runs}))

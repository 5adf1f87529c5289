"""Two workers, one of which is killed, as the example shows them."""

import json
import re
import subprocess
import sys

import pytest

from tests import commands


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_both_go_on(photos, tmp_path):
    workdir = tmp_path / "run"
    found = subprocess.run(
        [
            sys.executable,
            "examples/demo_workers.py",
            f"--workdir={workdir}",
            f"--dataset=folder:{photos}",
            "--batch_size=8",
            "--checkpoint_every=2",
        ],
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Traceback" not in found.stdout
    ended = re.search(r"Worker 0 ended (\d+) seconds later, .* code 1", found.stdout)
    assert int(ended[1]) < 60
    assert (
        "worker 0: error: Every process must stay alive, and in reach" in found.stdout
    )
    assert "worker 0: Going on after step" in found.stdout
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert "skipped_images" in json.loads((workdir / "results.json").read_text())

"""Which process this is among those that train one network together."""

import json
import os
import re
import typing


class Task(typing.NamedTuple):
    """One process among those that train together: its position, and their number."""

    worker: int = 0
    workers: int = 1

    @property
    def writes(self):
        """Whether this process writes the files of the run; one does."""
        return self.worker == 0


def task():
    """This process's `Task`, as the environment variable TF_CONFIG has it.

    Raises:
        ValueError: TF_CONFIG is missing or wrong.
    """
    rule = (
        "--distribute=multi_worker needs TF_CONFIG="
        '\'{"cluster": {"worker": ["HOST:PORT", …]}, '
        '"task": {"type": "worker", "index": 0}}\' with an index for each process.'
    )
    text = os.environ.get("TF_CONFIG")
    if text is None:
        raise ValueError(f"{rule} Received: no TF_CONFIG")
    try:
        config = json.loads(text)
        hosts, own = config["cluster"]["worker"], config["task"]
        right = (
            set(config["cluster"]) == {"worker"}
            and own["type"] == "worker"
            and isinstance(hosts, list)
            and all(re.fullmatch(r".+:\d+", host) for host in hosts)
            and 0 <= int(own["index"]) < len(hosts)
        )
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise ValueError(f"{rule} Received: TF_CONFIG={text}")
    return Task(int(own["index"]), len(hosts))

"""What .tflite files cost on this machine: time, memory, and both compared.

Each file is loaded in a process of its own, since resident memory tells something there
only. The processes of all files are asked in turns, so that a noisy minute is one for
every file and ratios hold.
"""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import re
import statistics
import tempfile

import numpy as np

from rs_keras import tool_flag_definitions
from rs_keras.profiling import tflite_client

APIS = tool_flag_definitions.TFLITE_APIS
# How often a file is loaded, in a fresh process each time.
LOADS = 3
WARM_UP_RUNS = 3
# Runs before another file's turn, after one that is not counted.
RUNS_A_TURN = 5
SWITCHES = 20


def check_apis(apis):
    """Raises ValueError unless all are known, and there is one."""
    if not apis or set(apis) - set(APIS):
        raise ValueError(f"`apis` must be some of {APIS}. Received: apis={tuple(apis)}")


def measure(entries, apis=APIS, *, threads=1, runs=50, progress=print):
    """Loads, runs and compares.

    Args:
        entries: list of `tflite_entry.Entry`; the first is what ratios refer to.
        apis: some of `APIS`.
        threads: for each inference.
        runs: of each resolution.
        progress: called with a line now and then.

    Returns:
        {"machine": {"processor", "cpus", "litert", "threads"}, "runs", "files":
        [{"title", "paths", "layout", "bytes", "apis": {api: {"load_ms", "memory": None
        without /proc, or {"base", "loaded", "run": {"resident", "anonymous"}} in bytes,
        "switch_ms": None for one resolution, "resolutions": {resolution: {"first_ms",
        "median_ms", "p90_ms", "ratio": to the first file, None if it has no such}}}, or
        {"error": text}}}]}. With the cache on disk "load_ms" is with a file that is
        there, "load_cold_ms" with one that is made, of "cache_bytes".
    """
    files = [
        {"title": e.title, "paths": e.paths, "layout": e.layout, "bytes": e.bytes}
        | {"apis": {}}
        for e in entries
    ]
    for api in apis:
        with contextlib.ExitStack() as stack:
            timers = [_Timer(stack, e, api, threads) for e in entries]
            for number, timer in enumerate(timers, 1):
                progress(f"{api}: loading {timer.entry.title} ({number}/{len(timers)})")
                timer.attempt(timer.load)
            _in_turns(timers, runs, lambda line, api=api: progress(f"{api}: {line}"))
            for file, timer in zip(files, timers, strict=True):
                file["apis"][api] = timer.result(timers[0])
    machine = {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "litert": importlib.metadata.version("ai-edge-litert"),
        "threads": threads,
    }
    return {"machine": machine, "runs": runs, "files": files}


def memory(entries, apis=("interpreter", "compiled_model"), *, threads=1):
    """What files occupy after all their resolutions have run.

    Args:
        entries, apis, threads: as for `measure`.

    Returns:
        {api: [resident bytes of each entry, above those before it was loaded]}; None
        for an API that cannot run an entry, and on systems without /proc.
    """
    found = {}
    for api in apis:
        with contextlib.ExitStack() as stack:
            timers = [_Timer(stack, entry, api, threads) for entry in entries]
            for timer in timers:
                timer.attempt(timer.load, 1)
            found[api] = [timer.resident() for timer in timers]
    return {api: None if None in found[api] else found[api] for api in found}


def _in_turns(timers, runs, progress):
    turns = [min(RUNS_A_TURN, runs - n) for n in range(0, runs, RUNS_A_TURN)]
    seconds = sum(t.seconds(runs + len(turns)) for t in timers)
    progress(
        f"{runs} runs of each resolution, files in turns: about {seconds + 1:.0f} s"
    )
    sizes = list(dict.fromkeys(size for t in timers for size in t.entry.places))
    for number, count in enumerate(turns):
        for size in sizes:
            # Whoever comes second may find a warmer machine.
            for timer in timers[:: -1 if number % 2 else 1]:
                if size in timer.entry.places:
                    timer.attempt(timer.turn, size, count)
    for timer in timers:
        timer.attempt(timer.switch)


class _Timer:
    """An entry in its process."""

    def __init__(self, stack, entry, api, threads):
        self.entry = entry
        self.error = None
        self._stack, self._api, self._threads = stack, api, threads
        self._found, self._warm_up, self._process = {}, {}, None
        self._turns = {size: [] for size in entry.places}

    def attempt(self, step, *arguments):
        """Does a step, unless one has failed."""
        if self.error is None:
            try:
                step(*arguments)
            except tflite_client.Failure as failure:
                self.error = str(failure)

    def load(self, times=LOADS):
        scratch = tempfile.TemporaryDirectory(prefix="rs_keras.")
        directory = pathlib.Path(self._stack.enter_context(scratch))
        loads = [self._load_anew(directory / str(n)) for n in range(times)]
        if self._api == "compiled_model_disk_cache":
            self._found["load_cold_ms"] = _median(load["load_ms"] for load in loads)
            cache = directory / "0"
            self._found["cache_bytes"] = sum(p.stat().st_size for p in cache.iterdir())
            loads = [self._load_anew(cache) for _ in range(LOADS)]
        self._found["load_ms"] = _median(load["load_ms"] for load in loads)
        for place, size in enumerate(self.entry.places):
            arguments = {"place": place, "runs": WARM_UP_RUNS}
            self._warm_up[size] = self._process.ask("time", **arguments)
        used = {"run": self._process.ask("memory")}
        used |= {when: loads[-1][when] for when in ("base", "loaded")}
        self._found["memory"] = used if used["run"] else None

    def resident(self):
        """Bytes after all resolutions have run, above those before; None if unknown."""
        used = self._found.get("memory")
        return used and used["run"]["resident"] - used["base"]["resident"]

    def _load_anew(self, directory):
        """Leaves the process behind, and ends the one before it."""
        directory.mkdir(exist_ok=True)
        cache = {"compiled_model_memory_cache": ":memory"}.get(self._api, "")
        paths = self.entry.paths
        caches = [cache] * len(paths)
        if self._api == "compiled_model_disk_cache":
            caches = [str(directory / f"{n}.cache") for n in range(len(paths))]
        if self._process is not None:
            self._process.close()
        self._process = self._stack.enter_context(tflite_client.Process())
        return self._process.ask(
            "load",
            compiled=self._api != "interpreter",
            paths=paths,
            places=list(self.entry.places.values()),
            threads=self._threads,
            caches=caches,
        )

    def seconds(self, runs):
        """About what so many runs of each resolution will take, and switches."""
        steady = [ms[-1] / 1e3 for ms in self._warm_up.values()]
        switches = SWITCHES * 5 / max(len(steady), 1) if len(steady) > 1 else 0
        return sum(steady) * (runs + switches)

    def turn(self, size, count):
        place = list(self.entry.places).index(size)
        self._turns[size].append(
            self._process.ask("time", place=place, runs=1 + count)[1:]
        )

    def switch(self):
        found = self._process.ask("switch", samples=SWITCHES)
        self._found["switch_ms"] = _median(found) if found else None

    def result(self, base):
        """Numbers for `measure`; ratios to those of the timer `base`."""
        if self.error is not None:
            return {"error": self.error}
        rows = {}
        for size, turns in self._turns.items():
            ratio = None
            if base.error is None and size in base._turns:
                both = zip(turns, base._turns[size], strict=True)
                ratio = _median(_median(mine) / _median(its) for mine, its in both)
            milliseconds = [ms for turn in turns for ms in turn]
            rows[str(size)] = {
                "first_ms": self._warm_up[size][0],
                "median_ms": _median(milliseconds),
                "p90_ms": float(np.percentile(milliseconds, 90)),
                "ratio": ratio,
            }
        return {**self._found, "resolutions": rows}


def _median(values):
    return float(statistics.median(values))


def _processor():
    """As the system names it."""
    with contextlib.suppress(OSError):
        text = pathlib.Path("/proc/cpuinfo").read_text()
        names = re.findall(r"^model name\s*: (.+)", text, re.MULTILINE)
        if names:
            return names[0]
    return platform.processor() or platform.machine()

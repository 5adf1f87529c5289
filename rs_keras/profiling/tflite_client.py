"""Asking a `tflite_process`."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile


class Failure(Exception):
    """LiteRT cannot do something with a file; the text says why."""


class Process:
    """A `tflite_process`, as a context."""

    def __init__(self):
        root = pathlib.Path(__file__).parents[2]
        paths = (str(root), os.environ.get("PYTHONPATH", ""))
        self._messages = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rs_keras.profiling.tflite_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def ask(self, what, **arguments):
        """The answer of a method of `tflite_process.Server`; or raises Failure."""
        try:
            request = json.dumps({"ask": what, "with": arguments})
            print(request, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failure(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(" ".join(answer["error"].split()))
        return answer["answer"]

    def _last_words(self):
        code = self._process.wait()
        if code < 0:
            return f"LiteRT ended with {signal.Signals(-code).name}"
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        return next((x for x in reversed(lines) if x), f"LiteRT ended with {code}")

    def close(self):
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._messages.close()

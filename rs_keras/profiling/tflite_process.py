"""The process that loads .tflite files and times them; `tflite_cost` starts it.

It imports LiteRT and NumPy alone, so that what its memory grows by is the cost of the
files. Each line of standard input is a request, each line of standard output an answer,
both JSON; LiteRT's own messages go to standard error.
"""

import json
import math
import os
import pathlib
import re
import statistics
import sys
import time

import numpy as np

# After a switch, so many more runs tell what a run costs without one.
STEADY_RUNS = 3


def memory():
    """Of this process, bytes: {"resident", "anonymous"}; None on systems without /proc.

    Anonymous memory belongs to the process alone; the rest of the resident memory are
    pages of files, which the system can drop and read again; but for those of a weight
    cache in memory, which no disk holds.
    """
    try:
        text = pathlib.Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        try:
            text = pathlib.Path("/proc/self/statm").read_text()
        except OSError:
            return None
        pages = int(text.split()[1])
        return {"resident": pages * os.sysconf("SC_PAGE_SIZE"), "anonymous": None}
    kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
    return {
        "resident": int(kilobytes["Rss"]) * 1024,
        "anonymous": int(kilobytes["Anonymous"]) * 1024,
    }


class Interpreters:
    """Files that are loaded by `Interpreter`."""

    def __init__(self, paths, threads, caches):
        del caches  # it knows none
        from ai_edge_litert import interpreter

        self._files = [interpreter.Interpreter(p, num_threads=threads) for p in paths]
        for file in self._files:
            file.allocate_tensors()
        self._runners = {}

    def run(self, place, image):
        """From an image in memory to outputs in memory; resizes where it must."""
        key = (place["file"], place["key"])
        if key not in self._runners:
            self._runners[key] = self._files[key[0]].get_signature_runner(key[1])
        return self._runners[key](**{place["input"]: image})


class CompiledModels:
    """Files that are loaded by `CompiledModel`.

    Args:
        caches: for each file the `xnnpack_weight_cache_path`: a path, ":memory", or ""
            for none.
    """

    def __init__(self, paths, threads, caches):
        from ai_edge_litert import compiled_model as litert

        def load(path, cache):
            cpu = litert.CpuOptions(
                num_threads=threads, xnnpack_weight_cache_path=cache
            )
            options = litert.Options(litert.HardwareAccelerator.CPU, cpu_options=cpu)
            return litert.CompiledModel.from_file(path, options=options)

        self._files = [load(*both) for both in zip(paths, caches, strict=True)]
        self._ready = {}

    def run(self, place, image):
        """From an image in memory to outputs in memory; resizes where it must."""
        signature = (place["file"], place["key"])
        shape, inputs, outputs = self._ready.get(signature, (None, None, None))
        file, key = self._files[place["file"]], place["key"]
        if shape != image.shape:
            if place["open"]:
                file.resize_input_tensor_by_name(key, place["input"], image.shape)
            inputs = {
                place["input"]: file.create_input_buffer_by_name(key, place["input"])
            }
            outputs = {
                name: (
                    file.create_output_buffer_by_name(key, name),
                    math.prod(found["shape"]),
                    found["dtype"],
                )
                for name, found in file.get_output_tensor_details(key).items()
            }
            self._ready[signature] = (image.shape, inputs, outputs)
        inputs[place["input"]].write(image)
        file.run_by_name(key, inputs, {name: o[0] for name, o in outputs.items()})
        return {
            name: buffer.read(count, np.dtype(dtype).type)
            for name, (buffer, count, dtype) in outputs.items()
        }


class Server:
    """What can be asked for: its public methods."""

    def __init__(self):
        self._files, self._places, self._images = None, None, None

    def inspect(self, path):
        """The signatures of a file: [{"key", "inputs": {name: {"shape", "dtype"}}}].

        -1 stands in a shape for what is open.
        """
        from ai_edge_litert import interpreter

        file = interpreter.Interpreter(path)
        file.allocate_tensors()  # a damaged file may be noticed here only

        def inputs(key):
            details = file.get_signature_runner(key).get_input_details()
            return {
                name: {
                    "shape": [int(n) for n in found["shape_signature"]],
                    "dtype": np.dtype(found["dtype"]).name,
                }
                for name, found in details.items()
            }

        return [
            {"key": key, "inputs": inputs(key)} for key in file.get_signature_list()
        ]

    def load(self, compiled, paths, places, threads, caches):
        """Loads files; {"load_ms", "base" and "loaded": `memory()`}.

        Args:
            compiled: whether by `CompiledModel`, or else by `Interpreter`.
            places: where images go in: [{"file": index of a path, "key": a signature,
                "input": name, "shape": of the image, "dtype", "open": whether the file
                leaves the shape open}].
            caches: see `CompiledModels`.
        """
        if compiled:
            from ai_edge_litert import compiled_model  # noqa: F401
        else:
            from ai_edge_litert import interpreter  # noqa: F401
        self._places = places
        self._images = [_image(place["shape"], place["dtype"]) for place in places]
        kind = CompiledModels if compiled else Interpreters
        base, start = memory(), time.perf_counter()
        self._files = kind(paths, threads, caches)
        milliseconds = _milliseconds_since(start)
        return {"load_ms": milliseconds, "base": base, "loaded": memory()}

    def memory(self):
        return memory()

    def time(self, place, runs):
        """Milliseconds of each run of one of the places."""
        return [self._time(place) for _ in range(runs)]

    def switch(self, samples):
        """Milliseconds by which a first run after another place's is longer than later
        ones; at least `samples`, over all ordered pairs of places."""
        count = len(self._places)
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        found = []
        while pairs and len(found) < samples:
            for before, after in pairs:
                self._time(before)
                first = self._time(after)
                steady = [self._time(after) for _ in range(STEADY_RUNS)]
                found.append(first - statistics.median(steady))
        return found

    def _time(self, place):
        start = time.perf_counter()
        self._files.run(self._places[place], self._images[place])
        return _milliseconds_since(start)


def _milliseconds_since(start):
    return (time.perf_counter() - start) * 1e3


def _image(shape, dtype):
    """Noise: what a file computes does not change what it costs."""
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return values.view(np.int8) if dtype == "int8" else values.astype(dtype)


def main():
    # Nothing but answers may come where answers are read.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(server, request["ask"])(**request["with"])}
        except Exception as error:  # whatever LiteRT raises is an answer, too
            answer = {"error": f"{error}" or type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Memory and time of a training step against the number of resolutions.

    python benchmarks/activation_memory.py --threads=2 --rounds=5

RS-ResNet-18 with the first S of `--resolutions`, `activation_memory="all"` beside
`"one_resolution"`. The memory of a configuration is taken in a process of its own: what
a step needs at its peak above what the process holds between steps (weights, optimizer,
the graph). On a GPU it is TensorFlow's own count, on a CPU the resident set, where
two things must be kept from distorting it: oneDNN's allocator, which never gives a
buffer back (TF_ENABLE_ONEDNN_OPTS=0), and glibc's heaps, which keep and split what is
freed (every buffer of 64 KiB or more is mapped by itself: MALLOC_MMAP_THRESHOLD_). With
`--backend=jax` it is what XLA's compiler reserves for temporary values, and no time is
taken.

Times come from one process in which all configurations take one step each in every
round: of the clock, and of the processor, which other work on the machine does not
stretch. Prints one JSON line a number of resolutions: bytes, median seconds, and the
medians over the rounds of one_resolution / all; `to_largest` is the memory beside that
of the largest resolution alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

MODES = ("all", "one_resolution")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PAUSE_SECONDS = 0.2
PLAIN_MEMORY = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def _model_and_batch(arguments, count, mode):
    import numpy as np

    import rs_keras

    resolutions = arguments.resolutions[:count]
    model = rs_keras.resnet18(resolutions, arguments.num_classes)
    model.compile(
        rs_keras.SGD(1e-3, momentum=0.9, weight_decay=1e-4),
        activation_memory=mode,
        jit_compile=arguments.jit or arguments.backend == "jax",
    )
    generator = np.random.default_rng(0)
    images = {
        r: generator.integers(0, 256, (arguments.batch_size, r, r, 3), dtype=np.uint8)
        for r in resolutions
    }
    labels = generator.integers(0, arguments.num_classes, arguments.batch_size)
    return model, (images, labels)


class Stepper:
    """Steps of one network on one random batch; `step()` returns {clock: seconds}."""

    def __init__(self, arguments, count, mode):
        import tensorflow as tf

        self._model, batch = _model_and_batch(arguments, count, mode)
        self._model.make_train_function()
        self._batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step(self):
        starts = {name: clock() for name, clock in CLOCKS.items()}
        float(self._model.train_function(self._batches)["loss"])
        return {name: clock() - starts[name] for name, clock in CLOCKS.items()}


def _limit_threads(arguments):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    return tf


def _status(field):
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _peak_of_a_step(arguments, count, mode):
    """Bytes that a step needs above what is there between steps."""
    if arguments.backend == "jax":
        return _compiled_bytes(arguments, count, mode)
    tf = _limit_threads(arguments)
    stepper = Stepper(arguments, count, mode)
    stepper.step()
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        stepper.step()
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] - before
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak so far is forgotten
    stepper.step()
    return _status("VmHWM") - before


def _compiled_bytes(arguments, count, mode):
    import jax

    model, (images, labels) = _model_and_batch(arguments, count, mode)
    state = tuple(
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    step = jax.jit(model.train_step, donate_argnums=0)
    compiled = step.lower(state, (images, labels)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _in_a_process(count, mode):
    """`_peak_of_a_step`, in a process that has done nothing else."""
    output = subprocess.run(
        [sys.executable, *sys.argv, f"--measure={count},{mode}"],
        env={**os.environ, **PLAIN_MEMORY},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return int(output.splitlines()[-1])


def _seconds(arguments, configurations):
    """{configuration: [{clock: seconds}, one per round]}, after one that is not."""
    _limit_threads(arguments)
    steppers = {key: Stepper(arguments, *key) for key in configurations}
    for stepper in steppers.values():
        stepper.step()
    seconds = {key: [] for key in configurations}
    for _ in range(arguments.rounds):
        for key, stepper in steppers.items():
            time.sleep(PAUSE_SECONDS)
            seconds[key].append(stepper.step())
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--resolutions",
        type=lambda text: [int(r) for r in text.split(",")],
        default=[224, 192, 160, 128, 96],
    )
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument(
        "--backend", choices=("tensorflow", "jax"), default="tensorflow"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = arguments.backend

    if arguments.measure:
        count, mode = arguments.measure.split(",")
        print(_peak_of_a_step(arguments, int(count), mode))
        return
    counts = range(1, len(arguments.resolutions) + 1)
    configurations = [(count, mode) for count in counts for mode in MODES]
    peaks = {key: _in_a_process(*key) for key in configurations}
    timed = arguments.backend == "tensorflow" and arguments.rounds > 0
    seconds = _seconds(arguments, configurations) if timed else {}
    for count in counts:
        found = {mode: peaks[count, mode] for mode in MODES}
        report = {
            "benchmark": "activation_memory",
            "backend": arguments.backend,
            "jit": arguments.jit,
            "resolutions": arguments.resolutions[:count],
            "batch_size": arguments.batch_size,
            "threads": arguments.threads,
            "bytes": found,
            "to_largest": {
                mode: round(peak / peaks[1, "all"], 3) for mode, peak in found.items()
            },
        }
        for clock in CLOCKS if timed else ():
            both = {mode: [t[clock] for t in seconds[count, mode]] for mode in MODES}
            ratios = [b / a for a, b in zip(*both.values(), strict=True)]
            report[f"{clock}_seconds"] = {
                mode: round(statistics.median(values), 3)
                for mode, values in both.items()
            }
            report[f"{clock}_ratio"] = round(statistics.median(ratios), 3)
            report[f"{clock}_ratios"] = [round(ratio, 3) for ratio in ratios]
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()

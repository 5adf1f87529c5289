"""One training step of RS-ResNet-18 beside its alternatives.

    python benchmarks/train_step.py --threads=2 --rounds=7

Three arms are measured in turn, one step of each in every round, so that a change of
the machine's pace meets all of them:

    rs_keras  one network, every resolution, full distillation, SGD: one graph step
    i_nets    one rs_keras network per resolution, one step of each, summed
    torch     the network of torch_rsnet.py, channels_last, the same loss and optimizer

PyTorch runs in a child process, because the thread pools of the two frameworks disturb
each other in one; it waits on a pipe while TensorFlow works, and the other way round.
Both processes are bound to the same `--threads` cores where the system can do that.

Prints one JSON line: the medians in seconds, and the median over the rounds of
rs_keras / i_nets and rs_keras / torch. Needs the extra `torch`; with `--no-torch` that
arm is left out.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

# OpenMP's threads spin after their last work; the pause lets them fall asleep.
PAUSE_SECONDS = 0.3
LEARNING_RATE = 0.1


class KerasStepper:
    """Steps of one rs_keras network on one random batch; `step()` returns seconds."""

    def __init__(self, resolutions, num_classes, batch_size, mode):
        import numpy as np
        import tensorflow as tf

        import rs_keras

        self._model = rs_keras.resnet18(
            resolutions=tuple(resolutions), num_classes=num_classes
        )
        self._model.compile(
            optimizer=rs_keras.SGD(LEARNING_RATE, momentum=0.9, weight_decay=1e-4),
            loss=rs_keras.MultiResolutionDistillation(mode=mode),
        )
        self._model.make_train_function()
        generator = np.random.default_rng(0)
        images = {
            r: generator.integers(0, 256, (batch_size, r, r, 3), dtype=np.uint8)
            for r in resolutions
        }
        labels = generator.integers(0, num_classes, batch_size)
        self._batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())

    def step(self):
        start = time.perf_counter()
        logs = self._model.train_function(self._batches)
        float(logs["loss"])
        return time.perf_counter() - start


class TorchChild:
    """torch_rsnet.py in a process of its own; `step()` returns its seconds."""

    def __init__(self, arguments):
        script = pathlib.Path(__file__).with_name("torch_rsnet.py")
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(script),
                "--serve",
                f"--resolutions={','.join(map(str, arguments.resolutions))}",
                f"--num_classes={arguments.num_classes}",
                f"--batch_size={arguments.batch_size}",
                f"--threads={arguments.threads}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                "The PyTorch process ended early. "
                f"Received: exit code {self._process.wait()}"
            )
        return json.loads(line)

    def step(self):
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._read()

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def _bind_to_cores(threads):
    """Keeps this process and its children on `threads` cores; True where possible."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return True


def _keras_arms(arguments):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    # CPU beside CPU, also on a machine with an accelerator.
    tf.config.set_visible_devices([], "GPU")
    size = arguments.num_classes, arguments.batch_size
    rs_net = KerasStepper(arguments.resolutions, *size, mode="full")
    i_nets = [KerasStepper([r], *size, mode="none") for r in arguments.resolutions]
    return {
        "rs_keras": rs_net.step,
        "i_nets": lambda: sum(i_net.step() for i_net in i_nets),
    }


def _versions():
    import keras
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _measure(arms, rounds):
    """{arm: [seconds, one per round]}, after two steps of each that do not count."""
    for step in list(arms.values()) * 2:
        step()
    seconds = {name: [] for name in arms}
    for _ in range(rounds):
        for name, step in arms.items():
            time.sleep(PAUSE_SECONDS)
            seconds[name].append(step())
    return seconds


def _ratio(seconds, other):
    """The median over the rounds of rs_keras / other."""
    pairs = zip(seconds["rs_keras"], seconds[other], strict=True)
    return round(statistics.median(ours / theirs for ours, theirs in pairs), 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--resolutions",
        type=lambda text: [int(r) for r in text.split(",")],
        default=[224, 192, 160, 128, 96],
    )
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-torch", dest="torch", action="store_false")
    arguments = parser.parse_args()

    bound = _bind_to_cores(arguments.threads)
    child = TorchChild(arguments) if arguments.torch else None
    arms = _keras_arms(arguments)
    versions = _versions()
    if child:
        arms["torch"] = child.step
        versions |= child.versions
    seconds = _measure(arms, arguments.rounds)
    if child:
        child.close()
    report = {
        "benchmark": "train_step",
        "resolutions": arguments.resolutions,
        "batch_size": arguments.batch_size,
        "num_classes": arguments.num_classes,
        "threads": arguments.threads,
        "bound_to_cores": bound,
        "median_seconds": {
            name: round(statistics.median(values), 4)
            for name, values in seconds.items()
        },
        "ratios": {
            f"rs_keras/{name}": _ratio(seconds, name) for name in list(arms)[1:]
        },
        "rounds": {
            name: [round(value, 4) for value in values]
            for name, values in seconds.items()
        },
        "versions": versions,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

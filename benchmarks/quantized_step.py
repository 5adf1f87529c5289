"""One step of RS-ResNet-18: float, 2-bit weights, 2-bit weights and activations.

    python benchmarks/quantized_step.py --threads=2 --rounds=7

The arms take one step each in every round, so that a change of the machine's pace meets
all of them. Beside them: the time of an activation quantizer in training, forward,
backward and its share of a fit, against that of the 3x3 convolution that it feeds
(8 x 56 x 56 x 64), and the peak memory of each arm in a process of its own.

Prints one JSON line: medians in seconds, and the medians over the rounds of each arm's
ratio to float.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

BITS = {"float": (32, 32), "w2a32": (2, 32), "w2a2": (2, 2)}
PAUSE_SECONDS = 0.3


class Stepper:
    """Steps of one network on one random batch; `step()` returns seconds."""

    def __init__(self, bits, arguments):
        import numpy as np
        import tensorflow as tf

        import rs_keras

        model = rs_keras.resnet18(
            tuple(arguments.resolutions),
            arguments.num_classes,
            weight_bits=bits[0],
            activation_bits=bits[1],
            basis_updates=arguments.basis_updates,
        )
        # Small: what is timed is the arithmetic, not a training that diverges.
        model.compile(rs_keras.SGD(1e-3, momentum=0.9, weight_decay=1e-4))
        model.make_train_function()
        self._model = model
        generator = np.random.default_rng(0)
        shape = arguments.batch_size
        images = {
            r: generator.integers(0, 256, (shape, r, r, 3), dtype=np.uint8)
            for r in arguments.resolutions
        }
        labels = generator.integers(0, arguments.num_classes, shape)
        self._batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())

    def step(self):
        start = time.perf_counter()
        float(self._model.train_function(self._batches)["loss"])
        return time.perf_counter() - start


def _parts():
    """Functions that time a quantizer and the convolution that it feeds."""
    import numpy as np
    import tensorflow as tf

    from quant import quantizers

    draw = np.random.default_rng(0).standard_normal
    x = tf.constant(np.maximum(draw((8, 56, 56, 64)), 0).astype("float32"))
    kernel = tf.constant(draw((3, 3, 64, 64)).astype("float32"))
    layer = quantizers.LQActivationQuantizer(2)
    layer(x)

    def gradients(function):
        @tf.function
        def run(x, kernel):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                y = function(x, kernel)
            # A gradient from outside: none of its own is computed and timed.
            found = tape.gradient(y, [x, kernel], output_gradients=y)
            return [tf.reduce_max(g) for g in found if g is not None]

        return run

    parts = {
        "quantizer": gradients(lambda x, kernel: layer(x, update="fit")),
        "convolution": gradients(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME")),
    }

    def timed(function):
        start = time.perf_counter()
        [float(value) for value in function(x, kernel)]
        return time.perf_counter() - start

    return {name: (lambda f=function: timed(f)) for name, function in parts.items()}


def _measure(arms, rounds, pause):
    """{arm: [seconds, one per round]}, after two of each that do not count."""
    for step in list(arms.values()) * 2:
        step()
    seconds = {name: [] for name in arms}
    for _ in range(rounds):
        for name, step in arms.items():
            time.sleep(pause)
            seconds[name].append(step())
    return seconds


def _ratio(seconds, name, base):
    pairs = zip(seconds[name], seconds[base], strict=True)
    return round(statistics.median(one / other for one, other in pairs), 4)


def _peak_mib(name):
    """Peak memory of a process that takes three steps of one arm."""
    command = [sys.executable, *sys.argv, f"--only={name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])["peak_mib"]


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
    parser.add_argument("--basis_updates", default="once")
    parser.add_argument(
        "--only", choices=BITS, help="three steps of one arm, its memory"
    )
    arguments = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: arguments.threads])
    if arguments.only is None:
        memory = {name: _peak_mib(name) for name in BITS}
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    tf.config.set_visible_devices([], "GPU")
    if arguments.only is not None:
        stepper = Stepper(BITS[arguments.only], arguments)
        for _ in range(3):
            stepper.step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"peak_mib": round(peak)}))
        return

    steps = {name: Stepper(bits, arguments).step for name, bits in BITS.items()}
    seconds = _measure(steps, arguments.rounds, PAUSE_SECONDS)
    parts = _measure(_parts(), 3 * arguments.rounds, 0)
    report = {
        "benchmark": "quantized_step",
        "resolutions": arguments.resolutions,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "basis_updates": arguments.basis_updates,
        "median_seconds": {
            name: round(statistics.median(values), 4)
            for name, values in {**seconds, **parts}.items()
        },
        "ratios": {
            "w2a32/float": _ratio(seconds, "w2a32", "float"),
            "w2a2/float": _ratio(seconds, "w2a2", "float"),
            "quantizer/convolution": _ratio(parts, "quantizer", "convolution"),
        },
        "peak_mib": memory,
        "rounds": {
            name: [round(value, 4) for value in values]
            for name, values in seconds.items()
        },
        "versions": {"python": sys.version.split()[0], "tensorflow": tf.__version__},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

"""The flags of the command lines, and how a user's mistake ends.

The only module that reads absl flags: everything else takes plain arguments.
"""

import contextlib
import dataclasses
import os
import re
import sys

from absl import app
from absl import flags

from rs_keras import resolutions as resolutions_lib
from rs_keras import train_config as train_config_lib

METHODS = ("rsnet", "parallel", "shared_bn", "single")
MODES = ("full", "vanilla", "top_down", "largest", "none")
MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def define_train_flags():
    """Defines the flags of `python -m rs_keras.train`."""
    define_workdir()
    flags.DEFINE_enum("model", "resnet18", MODELS, "Network.")
    flags.DEFINE_float("width", 1.0, "Factor on the channels.", lower_bound=0.01)
    define_quantization_flags()
    flags.DEFINE_string("dataset", None, "shapes | folder:DIR | tfds:NAME.")
    flags.DEFINE_list("resolutions", "224,192,160,128,96", "Side lengths, in pixels.")
    flags.DEFINE_integer(
        "num_classes", None, "Number of classes; default: the dataset's.", lower_bound=2
    )
    flags.DEFINE_enum(
        "method",
        "rsnet",
        METHODS,
        "rsnet: parallel training with distillation. parallel: without. shared_bn: "
        "parallel with one batch normalization for all. single: one resolution.",
    )
    flags.DEFINE_enum(
        "distillation", None, MODES, "Who teaches whom; default for rsnet: full."
    )
    flags.DEFINE_enum(
        "crops",
        "shared",
        ("shared", "per_resolution"),
        "One random crop an image, or one for each resolution.",
    )
    flags.DEFINE_integer(
        "views", 1, "Branches of a single resolution, each with its own BN.", 1
    )
    flags.DEFINE_enum(
        "flip", "per_resolution", ("per_resolution", "shared"), "Who shares a flip."
    )
    flags.DEFINE_enum(
        "preprocessing",
        "rsnet",
        ("rsnet", "official_quant"),
        "rsnet: the paper's. official_quant: that of the authors' quantized runs.",
    )
    flags.DEFINE_list("area", "0.08,1", "Range of the share of the image cropped.")
    flags.DEFINE_integer("epochs", 120, "Epochs.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 256, "Images a step.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.1, "Peak learning rate.", lower_bound=0.0)
    flags.DEFINE_float("weight_decay", 1e-4, "Coupled decay.", lower_bound=0.0)
    flags.DEFINE_enum(
        "decay_scope",
        "all",
        ("all", "kernels"),
        "What decays: every trained weight, or only kernels.",
    )
    flags.DEFINE_bool("nesterov", False, "Nesterov's form of the momentum.")
    flags.DEFINE_enum(
        "schedule",
        "cosine",
        ("cosine", "constant", "steps"),
        "Learning rate, step by step. steps: a tenth from each of --decay_epochs on.",
    )
    flags.DEFINE_list(
        "decay_epochs", None, "Epochs after which --schedule=steps falls."
    )
    flags.DEFINE_float(
        "warmup_epochs", 0.0, "Epochs of linear warm-up from 0.", lower_bound=0.0
    )
    flags.DEFINE_enum("precision", "float32", PRECISIONS, "Dtype policy.")
    flags.DEFINE_bool("jit", False, "Compile the step with XLA.")
    flags.DEFINE_integer("seed", 0, "Seed of every random choice.", 0, 2**32 - 1)
    define_threads()
    flags.DEFINE_string(
        "init_from", None, "Start from the weights of a workdir or a .keras file."
    )
    flags.DEFINE_enum(
        "resume",
        "auto",
        ("auto", "never", "must"),
        "auto: go on with a workdir's own run, if it has one. never: refuse a workdir "
        "that has a run. must: refuse one that has none.",
    )


def define_quantization_flags():
    """LQ-Nets: bits and bases."""
    bits = [str(bits) for bits in (*range(1, 9), 32)]
    flags.DEFINE_enum("weight_bits", "32", bits, "Bits of the kernels; 32: float.")
    flags.DEFINE_enum("activation_bits", "32", bits, "Bits of the activations.")
    flags.DEFINE_enum(
        "shortcut",
        "B",
        ("A", "B"),
        "Where a quantized ResNet changes the shape: convolution (B), pooling (A).",
    )
    flags.DEFINE_enum(
        "basis_updates",
        "once",
        ("once", "per_resolution"),
        "How often a step fits the bases: once, or with each resolution.",
    )
    flags.DEFINE_enum(
        "activation_basis",
        "shared",
        ("shared", "private", "largest"),
        "Bases of activations: one, one for each resolution, or one that only the "
        "largest resolution fits.",
    )


def define_workdir():
    flags.DEFINE_string("workdir", None, "Directory of the run.")


def define_threads():
    flags.DEFINE_integer("threads", 0, "CPU threads; 0: all.", lower_bound=0)


def define_json():
    flags.DEFINE_string("json", None, "Also write the numbers to this JSON file.")


def define_evaluate_flags():
    """Defines the flags of `python -m rs_keras.evaluate`."""
    define_workdir()
    flags.DEFINE_list(
        "resolutions", None, "Resolutions to test, also untrained; default: trained."
    )
    flags.DEFINE_string("dataset", None, "Another dataset; default: the run's own.")
    flags.DEFINE_integer("batch_size", 64, "Images a step.", lower_bound=1)
    define_threads()
    define_json()


def define_predict_flags():
    """Defines the flags of `python -m rs_keras.predict`."""
    define_workdir()
    flags.DEFINE_string("images", None, "An image, or a directory of images.")
    flags.DEFINE_integer(
        "resolution", None, "Resolution; default: the largest trained.", lower_bound=1
    )
    flags.DEFINE_enum(
        "fit", "crop", ("crop", "squash"), "How an image becomes a square."
    )
    flags.DEFINE_integer("top", 3, "Classes shown for an image.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=1)
    define_threads()
    define_json()


def define_compare_flags():
    """Defines the flags of `python -m tools.compare_runs`."""
    flags.DEFINE_string("runs", None, "Directory of the runs' folders.")
    define_json()


def train_config():
    """The parsed flags as a `TrainConfig`; ValueError where they contradict."""
    require("dataset", "workdir")
    values = {
        field.name: getattr(flags.FLAGS, field.name)
        for field in dataclasses.fields(train_config_lib.TrainConfig)
    }
    values["resolutions"] = resolutions_lib.check_resolutions(
        integers("resolutions"), views=values["views"]
    )
    values["area"] = _numbers("area", float, "numbers")
    values["decay_epochs"] = integers("decay_epochs")
    for name in ("weight_bits", "activation_bits"):
        values[name] = int(values[name])
    return train_config_lib.TrainConfig(**values)


def check_json():
    """Raises ValueError unless --json, if given, can be written to."""
    path = flags.FLAGS.json
    if path is not None and not os.path.isdir(os.path.dirname(path) or "."):
        raise ValueError(
            f"--json must be a file in a directory that exists. Received: --json={path}"
        )


def values():
    """The parsed flags, as attributes."""
    return flags.FLAGS


def require(*names):
    """Raises ValueError unless each of the flags is given."""
    for name in names:
        if getattr(flags.FLAGS, name) is None:
            raise ValueError(f"--{name} is needed. Received: no --{name}")


def integers(name):
    """A flag of comma-separated integers as a tuple; None if it is not given."""
    return _numbers(name, int, "integers")


def run(main):
    """Parses the command line and calls `main()`.

    A flag that absl refuses, or a command line with words that are no flags, ends in
    one sentence and exit code 2.
    """
    # TensorFlow's start-up notes are no news to users; errors still come through, but
    # for that of looking for a GPU where there is none.
    gpu = any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if gpu else "3")
    sys.stdout.reconfigure(line_buffering=True)

    def parse(argv):
        if "--help" in argv[1:]:
            print(sys.modules["__main__"].__doc__)
            print(flags.FLAGS.module_help(sys.modules[__name__]))
            sys.exit(0)
        with mistakes():
            try:
                rest = flags.FLAGS(argv)[1:]
            except flags.Error as error:
                raise ValueError(_flag_error(str(error))) from error
            if rest:
                raise ValueError(
                    f"Every argument must be a --flag. Received: {' '.join(rest)}"
                )
        return argv[:1]

    def interruptible(argv):
        try:
            main()
        except KeyboardInterrupt:
            print("Interrupted. The same command starts again.", file=sys.stderr)
            sys.exit(130)

    app.run(interruptible, flags_parser=parse)


@contextlib.contextmanager
def mistakes(kinds=(ValueError, OSError)):
    """Turns a user's mistake raised within into one sentence and exit code 2.

    Args:
        kinds: the exception classes that are mistakes.
    """
    try:
        yield
    except kinds as error:
        text = " ".join(str(error).split())
        if "Received: " not in text:
            text += f". Received: {' '.join(sys.argv[1:])}"
        print(f"error: {text}", file=sys.stderr)
        sys.exit(2)


def _flag_error(text):
    """absl's message as a sentence that names the flag and nothing else."""
    text = text.removeprefix("ERROR:: ").replace(" ?", "?")
    for kind, what in (("int", "an integer"), ("float", "a number")):
        match = re.match(rf"flag --(\w+)=(.*?): .*(?:literal for|to) {kind}\b", text)
        if match:
            name, value = match.groups()
            return f"--{name} must be {what}. Received: --{name}={value}"
    match = re.match(r"flag (--\w+=.*?): (.*)", text, re.DOTALL)
    if match:
        return f"{match[2]}. Received: {match[1]}"
    return text


def _numbers(name, kind, what):
    values = getattr(flags.FLAGS, name)
    try:
        return values and tuple(kind(v) for v in values)
    except ValueError as error:
        raise ValueError(
            f"--{name} must be {what} with commas between. "
            f"Received: --{name}={train_config_lib.as_text(values)}"
        ) from error

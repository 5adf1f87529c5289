"""The flags of `train`, `evaluate` and `predict`, with what each allows.

Defined here, read in `config` alone; `tool_flag_definitions` has those of the tools.
"""

from absl import flags

BN_MODES = ("interpolate", "nearest", "calibrate", "calibrate_exact")
METHODS = ("rsnet", "parallel", "shared_bn", "single")
MODES = ("full", "vanilla", "top_down", "largest", "none")
MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def define_train_flags():
    """Defines the flags of `python -m rs_keras.train`."""
    define_workdir()
    flags.DEFINE_string(
        "model",
        "resnet18",
        f"Network: {', '.join(MODELS)}, or a .keras file with a Keras "
        "classifier that takes RGB 0..255, which is made switchable.",
    )
    flags.register_validator(
        "model",
        lambda name: name in MODELS or name.endswith(".keras"),
        f"--model must be one of {', '.join(MODELS)}, or a .keras file",
    )
    flags.DEFINE_float("width", 1.0, "Factor on the channels.", lower_bound=0.01)
    define_quantization_flags()
    flags.DEFINE_string("dataset", None, "shapes | folder:DIR | tfds:NAME.")
    flags.DEFINE_enum(
        "scan",
        "on",
        ("on", "off"),
        "on: decode every file of a folder once, at the first start, and leave out bad "
        "ones. off: trust them; the next good image takes the place of a bad one.",
    )
    flags.DEFINE_enum(
        "on_bad_image",
        "skip",
        ("skip", "error"),
        "What the scan does about a bad image: skip it with a warning, or stop.",
    )
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
        "rsnet: the paper's. official_quant: that of the authors' quantized runs, for "
        "training and evaluation; predict resizes as the paper's does.",
    )
    define_scaling(
        "What the network does to RGB 0..255: x / 255, or ImageNet's mean and "
        "deviation; default: unit, and imagenet with --preprocessing=official_quant."
    )
    flags.DEFINE_list("area", "0.08,1", "Range of the share of the image cropped.")
    flags.DEFINE_enum(
        "resize",
        "exact",
        ("exact", "chained", "device"),
        "exact: every resolution from the crop. chained: each from the one above "
        "it. device: the CPU makes the largest, the accelerator the others of it.",
    )
    flags.DEFINE_integer("epochs", 120, "Epochs.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 256, "Images a step.", lower_bound=1)
    flags.DEFINE_integer(
        "accumulate", 1, "Parts in which a step takes its batch.", lower_bound=1
    )
    flags.DEFINE_enum(
        "activation_memory",
        "all",
        ("all", "one_resolution"),
        "one_resolution: the same step in the memory of the largest resolution alone; "
        "the others run forward twice.",
    )
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
    flags.DEFINE_enum(
        "distribute",
        "none",
        ("none", "mirrored", "multi_worker"),
        "mirrored: all GPUs of this machine. multi_worker: one process on each of "
        "several machines, as TF_CONFIG says. They share --batch_size.",
    )
    flags.DEFINE_string(
        "data_service",
        None,
        "grpc://HOST:PORT of a tf.data service that loads the training images; batches "
        "then come in no certain order.",
    )
    flags.DEFINE_bool(
        "synchronized_bn",
        False,
        "Batch normalization over the images of all devices, not of each.",
    )
    flags.DEFINE_integer(
        "checkpoint_every",
        1000,
        "Steps between two checkpoints; one at the end of each epoch comes on top.",
        lower_bound=1,
    )
    flags.DEFINE_enum(
        "on_nan",
        "stop",
        ("stop", "skip"),
        "What follows a step whose loss or gradient is not finite; it changes nothing "
        "in either case.",
    )
    flags.DEFINE_integer(
        "max_skipped_steps", 10, "With --on_nan=skip: the most in a run.", lower_bound=0
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "Start from the weights of a workdir, or a .keras or .lq file.",
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
    flags.DEFINE_enum(
        "activation_bits",
        "32",
        bits,
        "Bits of the activations, with quantized kernels; 32: float.",
    )
    flags.DEFINE_enum(
        "rest_bits", "32", ("8", "32"), "8: LQ-Nets leave nothing in float."
    )
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


def define_scaling(what):
    flags.DEFINE_enum("scaling", None, ("unit", "imagenet"), what)


def define_workdir():
    flags.DEFINE_string("workdir", None, "Directory of the run.")


def define_threads():
    flags.DEFINE_integer("threads", 0, "CPU threads; 0: all.", lower_bound=0)


def define_json():
    flags.DEFINE_string("json", None, "Also write the numbers to this JSON file.")


def define_evaluate_flags():
    """Defines the flags of `python -m rs_keras.evaluate`."""
    define_workdir()
    flags.DEFINE_string(
        "packed", None, "Test this .lq file, packed from the run, instead of the run."
    )
    flags.DEFINE_list(
        "resolutions", None, "Resolutions to test, also untrained; default: trained."
    )
    flags.DEFINE_enum(
        "bn",
        "interpolate",
        BN_MODES,
        "Batch normalization of untrained resolutions: interpolated between the "
        "neighbours, that of the nearest, or measured on training images, batch by "
        "batch or (exact) whatever the batches.",
    )
    flags.DEFINE_integer(
        "calibration_images",
        None,
        "Training images that --bn=calibrate measures; default: 1000, or all.",
        lower_bound=2,
    )
    flags.DEFINE_string(
        "plot", None, "Draw accuracy against resolution: a .png or .svg file."
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

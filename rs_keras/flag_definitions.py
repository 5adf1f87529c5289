"""The flags of every command line, with what each allows.

Defined here, read in `config` alone.
"""

from absl import flags

METHODS = ("rsnet", "parallel", "shared_bn", "single")
MODES = ("full", "vanilla", "top_down", "largest", "none")
MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# {layout of a .tflite file: its precisions}
TFLITE_LAYOUTS = {
    "signatures": ("float32", "float16", "int8_weights", "int8", "lq"),
    "dynamic": ("float32", "float16", "int8_weights"),
}
# How LiteRT runs a file; a cache keeps the weights as XNNPACK packs them.
TFLITE_APIS = (
    "interpreter",
    "compiled_model",
    "compiled_model_memory_cache",
    "compiled_model_disk_cache",
)


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
        "rsnet: the paper's. official_quant: that of the authors' quantized runs, for "
        "training and evaluation; predict resizes as the paper's does.",
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


def define_pack_flags():
    """Defines the flags of `python -m tools.pack`."""
    define_workdir()
    flags.DEFINE_string("output", None, "The .lq file to write.")
    flags.DEFINE_enum(
        "rest",
        "float32",
        ("float32", "float16", "int8"),
        "How what LQ-Nets leave float is written.",
    )
    flags.DEFINE_bool(
        "training_state",
        False,
        "Keep what training needs to go on: every weight in float32.",
    )
    flags.DEFINE_bool("overwrite", False, "Replace a file that is there.")
    define_json()


def define_export_saved_model_flags():
    """Defines the flags of `python -m tools.export_saved_model`."""
    define_workdir()
    flags.DEFINE_string("output", None, "The directory to write.")
    define_input_dtype()
    flags.DEFINE_bool("overwrite", False, "Replace a SavedModel that is there.")
    define_json()


def define_input_dtype():
    flags.DEFINE_enum(
        "input_dtype",
        None,
        ("float32", "uint8"),
        "Of the images, RGB 0..255; default: float32 (integer-only .tflite: uint8).",
    )


def define_export_tflite_flags():
    """Defines the flags of `python -m tools.export_tflite`."""
    define_workdir()
    flags.DEFINE_string("output", None, "The .tflite file to write.")
    flags.DEFINE_enum(
        "layout",
        "signatures",
        tuple(TFLITE_LAYOUTS),
        "dynamic: one graph for images of any size, which choose the batch "
        "normalization. signatures: a graph of fixed shapes for each resolution.",
    )
    flags.DEFINE_enum(
        "precision",
        None,
        sorted({p for found in TFLITE_LAYOUTS.values() for p in found}),
        "int8_weights: 8-bit kernels, computed in float; int8, lq: integers alone. "
        "Default: int8 (signatures), int8_weights (dynamic, without int8 and lq).",
    )
    flags.DEFINE_list(
        "resolutions", None, "With --layout=signatures: some of the trained ones."
    )
    define_input_dtype()
    flags.DEFINE_string(
        "calibration_images",
        None,
        "With --precision=int8 or lq: a directory of images whose activations give the "
        "ranges; default: some of the run's training set.",
    )
    flags.DEFINE_enum("verify", "on", ("on", "off"), "Compare it with the network.")
    flags.DEFINE_string(
        "verify_images",
        None,
        "An image, or a directory of images; default: the run's validation set.",
    )
    flags.DEFINE_float(
        "min_agreement",
        None,
        "Share of images, near-ties left out, whose class must be the network's; "
        "default: 0.99, and 0.97 with --precision=int8 or lq.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_bool("overwrite", False, "Replace a file that is there.")
    define_threads()
    define_json()


def define_benchmark_tflite_flags():
    """Defines the flags of `python -m tools.benchmark_tflite`."""
    flags.DEFINE_list("model", None, "The .tflite files, with commas between.")
    flags.DEFINE_string(
        "workdir",
        None,
        "Compare with one file a resolution, as TensorFlow makes them of this run.",
    )
    flags.DEFINE_list(
        "resolutions",
        None,
        "Sizes to run files with that take all; default: those of the report beside "
        "the file, or of the run, or 224,192,160,128,96.",
    )
    flags.DEFINE_list(
        "api", list(TFLITE_APIS), "How LiteRT runs a file; default: all ways."
    )
    flags.DEFINE_integer("threads", 1, "CPU threads of an inference.", lower_bound=1)
    flags.DEFINE_integer("runs", 50, "Runs of each resolution.", lower_bound=1)
    flags.DEFINE_string(
        "plot",
        None,
        "Draw the accuracy of the run against latency: a .png or .svg file.",
    )
    define_json()

"""The flags of the commands under tools/, with what each allows.

Defined here, read in `config` alone; those that other commands have as well are in
`flag_definitions`.
"""

from absl import flags

from rs_keras import flag_definitions

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


def define_compare_flags():
    """Defines the flags of `python -m tools.compare_runs`."""
    flags.DEFINE_string("runs", None, "Directory of the runs' folders.")
    flag_definitions.define_json()


def define_pack_flags():
    """Defines the flags of `python -m tools.pack`."""
    flag_definitions.define_workdir()
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
    flag_definitions.define_json()


def define_hit_miss_flags():
    """Defines the flags of `python -m tools.hit_miss`."""
    flags.DEFINE_list("workdir", None, "Directory of the run, or of individual ones.")
    _define_testing()
    _define_plot("the shares")
    flag_definitions.define_json()


def define_bn_flags():
    """Defines the flags of `python -m tools.bn_parameters`."""
    flag_definitions.define_workdir()
    _define_plot("them")
    flag_definitions.define_json()


def define_activations_flags():
    """Defines the flags of `python -m tools.activations`."""
    flag_definitions.define_workdir()
    _define_testing()
    _define_plot("the curves")
    flag_definitions.define_json()


def define_class_changes_flags():
    """Defines the flags of `python -m tools.class_changes`."""
    flag_definitions.define_workdir()
    _define_testing()
    _define_plot("the changes")
    flags.DEFINE_string(
        "examples", None, "Draw images that only one end gets right: .png or .svg."
    )
    flag_definitions.define_json()


def define_report_flags():
    """Defines the flags of `python -m tools.report`."""
    flag_definitions.define_workdir()
    flags.DEFINE_list("compare", [], "Directories of other runs, to stand beside it.")
    _define_exports()
    flags.DEFINE_enum(
        "images", "on", ("on", "off"), "Test the networks on the validation images."
    )
    flags.DEFINE_string(
        "output", None, "The .html file to write; default: the workdir's report.html."
    )
    _define_testing()
    flag_definitions.define_json()


def define_model_card_flags():
    """Defines the flags of `python -m tools.model_card`."""
    flag_definitions.define_workdir()
    flags.DEFINE_string(
        "output", None, "The .md file to write; default: the workdir's model_card.md."
    )
    flags.DEFINE_string(
        "license", None, "Of the weights: an SPDX identifier, or in words."
    )
    _define_exports()
    flags.DEFINE_bool("overwrite", False, "Replace a file that was changed by hand.")


def _define_testing():
    flags.DEFINE_integer("batch_size", 64, "Images a step.", lower_bound=1)
    flag_definitions.define_threads()


def _define_plot(what):
    flags.DEFINE_string("plot", None, f"Draw {what}: a .png or .svg file.")


def _define_exports():
    flags.DEFINE_list(
        "exports",
        [],
        "Exports outside the workdir: .tflite files, or what other exports wrote with "
        "--json.",
    )


def define_alpha_flags():
    """Defines the flags of `python -m tools.alpha`."""
    flag_definitions.define_workdir()
    _define_plot("the shares")
    flag_definitions.define_json()


def define_plot_flags():
    """Defines the flags of `python -m tools.plot_accuracy`."""
    flags.DEFINE_multi_string("curve", [], "TITLE=PATH[,PATH...]; may be repeated.")
    flags.DEFINE_enum(
        "against",
        "resolution",
        ("resolution", "multiply_adds"),
        "What accuracy is drawn against.",
    )
    flags.DEFINE_string(
        "relative_to", None, "Draw the difference to these: PATH[,PATH...]."
    )
    flags.DEFINE_string("plot", None, "The .png or .svg file to draw.")
    flag_definitions.define_json()


def define_import_flags():
    """Defines the flags of `python -m tools.import_torch_checkpoint`."""
    flags.DEFINE_string("checkpoint", None, "A .pth or .safetensors file.")
    models = flag_definitions.MODELS
    flags.DEFINE_enum("model", "resnet18", models, "What network it is.")
    flags.DEFINE_string("output", None, "The .keras file to write.")
    flags.DEFINE_list("resolutions", "224,192,160,128,96", "Side lengths, in pixels.")
    flags.DEFINE_float("width", 1.0, "Factor on the channels.", lower_bound=0.01)
    flags.DEFINE_bool("reset_head", False, "Leave the head out; it starts anew.")
    flags.DEFINE_integer(
        "num_classes", None, "Number of classes; default: the checkpoint's.", 2
    )
    flag_definitions.define_scaling(
        "How images were scaled in its training; default: unit (x / 255) for the "
        "authors' code, imagenet (mean and deviation) for others."
    )
    flags.DEFINE_bool("overwrite", False, "Replace a file that is there.")


def define_torch_export_flags():
    """Defines the flags of `python -m tools.export_torch_checkpoint`."""
    flag_definitions.define_workdir()
    flags.DEFINE_string("model", None, "A .keras file, in place of a run.")
    flags.DEFINE_string("output", None, "The .pth or .safetensors file to write.")
    flags.DEFINE_bool("overwrite", False, "Replace a file that is there.")


def define_export_saved_model_flags():
    """Defines the flags of `python -m tools.export_saved_model`."""
    flag_definitions.define_workdir()
    flags.DEFINE_string("output", None, "The directory to write.")
    define_input_dtype()
    flags.DEFINE_bool("overwrite", False, "Replace a SavedModel that is there.")
    flag_definitions.define_json()


def define_input_dtype():
    flags.DEFINE_enum(
        "input_dtype",
        None,
        ("float32", "uint8"),
        "Of the images, RGB 0..255; default: float32 (integer-only .tflite: uint8).",
    )


def define_export_tflite_flags():
    """Defines the flags of `python -m tools.export_tflite`."""
    flag_definitions.define_workdir()
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
    flag_definitions.define_threads()
    flag_definitions.define_json()


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
    _define_plot("the accuracy of the run against latency")
    flag_definitions.define_json()

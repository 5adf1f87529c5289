"""The text of a model card: Markdown, with the front matter that model hubs read.

After Mitchell et al., Model cards for model reporting, 2019: what the network is, how
to use it, its data, recipe, results and limits.
"""

import json
import math
import pathlib
import re

from rs_keras import flag_definitions
from rs_keras import progress
from rs_keras import run_facts

_METHODS = {
    "rsnet": (
        "One network for all resolutions with private batch normalization; a learnt "
        "ensemble of its predictions is distilled into each (RS-Nets, Wang et al., "
        "ECCV 2020)."
    ),
    "parallel": (
        "One network for all resolutions with private batch normalization, trained at "
        "all of them at once, without distillation (RS-Nets, Wang et al., ECCV 2020)."
    ),
    "shared_bn": (
        "One network trained at all resolutions at once, which share one batch "
        "normalization."
    ),
    "single": "A network for one resolution.",
}
# Flags of the machine, not of the recipe.
_NOT_IN_RECIPE = ("data_service", "threads")
_CLASSES = 40  # that are named


def text(workdir, license=None, exports=()):
    """The card of a finished run.

    Args:
        workdir: of the run.
        license: of the weights, as an SPDX identifier or in words.
        exports: as of `run_facts.exports`.
    """
    flags = run_facts.flags(workdir)
    results = run_facts.results(workdir)
    training = run_facts.training(workdir)
    images = run_facts.images(workdir)
    parts = (
        _front_matter(license),
        f"# {_plain(workdir.path.resolve().name)}",
        _what(flags, results),
        "## Use",
        _use(flags),
        "## Data",
        _data(flags, results, images),
        "## Recipe",
        _recipe(flags, training),
        "## Results",
        _results(results, images),
        "## Sizes",
        _sizes(workdir, results, exports),
        "## Licence",
        _terms(license, flags),
        "## Limits",
        _limits(flags, results, training, images),
    )
    return "\n\n".join(parts) + "\n"


def _front_matter(license):
    lines = ["---", "library_name: keras", "pipeline_tag: image-classification"]
    if license and re.fullmatch(r"[A-Za-z0-9.+-]+", license):
        lines.append(f"license: {json.dumps(license.lower())}")
    elif license:
        lines += ["license: other", f"license_name: {json.dumps(license)}"]
    lines += ["tags:", "- rs_keras", "- resolution-switchable", "---"]
    return "\n".join(lines)


def _what(flags, results):
    network = _plain(_last(flags["model"]))
    if float(flags.get("width", 1)) != 1:
        network += f" of {float(flags['width']):g} times the width"
    bits = [flags.get(f"{what}_bits", "32") for what in ("weight", "activation")]
    if bits[0] != "32":
        network += f" with {bits[0]}-bit weights"
        if bits[1] != "32":
            network += f" and {bits[1]}-bit activations"
        network += " (LQ-Nets, Zhang et al., ECCV 2018)"
    sides = flags["resolutions"].split(",")
    chosen = ", chosen at each call" if sides[1:] else ""
    return (
        f"Image classifier of {len(results['classes'])} classes: {network}, for images "
        f"of {', '.join(sides)} pixels{chosen}."
    )


def _use(flags):
    side = flags["resolutions"].split(",")[0]
    return f"""With Keras 3 and the package rs_keras:
```python
import keras
import rs_keras

model = keras.saving.load_model("model.keras")
# images: (N, H, W, 3), RGB, 0..255; their centre is taken, as for the results below
logits = model.predict(images, resolution={side})
names = [model.class_names[i] for i in logits.argmax(axis=-1)]
```"""


def _data(flags, results, images):
    counts = "numbers of images not recorded"
    if images:
        counts = f"{images['train']:,} training and {images['val']:,} validation images"
    names = [_plain(name) for name in results["classes"][:_CLASSES]]
    more = len(results["classes"]) - len(names)
    lines = [
        f"- `{dataset(flags)}`: {counts}.",
        f"- Classes: {', '.join(names)}{f' and {more} more' if more else ''}.",
    ]
    skipped = len(results["skipped_images"])
    if skipped:
        lines.append(
            f"- Files that were passed over, damaged or no images: {skipped:,}."
        )
    return "\n".join(lines)


def _recipe(flags, training):
    sentences = [_METHODS[flags["method"]]]
    sentences += [f"It starts from the weights in `{x}`." for x in _starts(flags)]
    sentences.append(
        f"{course(training)}; the weights are those of the last epoch, saved on "
        f"{training['date']} by Keras {training['keras']}."
    )
    shown = {**flags, "dataset": dataset(flags), "model": _last(flags["model"])}
    if "init_from" in flags:
        shown["init_from"] = _last(flags["init_from"])
    listed = "\n".join(
        f"--{name}={value}"
        for name, value in shown.items()
        if name not in _NOT_IN_RECIPE
    )
    return f"{' '.join(sentences)} The flags:\n```\n{listed}\n```"


def _results(results, images):
    lines = [
        "On the validation images, in percent"
        + (", top-1 with its standard error for so many images:" if images else ":"),
        "",
        "| pixels | top-1 | top-5 | mean over classes | million multiply-adds |",
        "|---|---|---|---|---|",
    ]
    rows = dict(results["resolutions"])
    if results["ensemble"] and len(rows) > 1:
        rows["ensemble of all"] = results["ensemble"]
    for key, row in rows.items():
        top1 = f"{100 * row['top1']:.1f}"
        if images:
            error = math.sqrt(row["top1"] * (1 - row["top1"]) / images["val"])
            top1 += f" ± {100 * error:.1f}"
        top5 = "–" if row["top5"] is None else f"{100 * row['top5']:.1f}"
        cost = f"{row['macs'] / 1e6:,.1f}" if "macs" in row else ""
        lines.append(
            f"| {key} | {top1} | {top5} | {100 * row['mean_class']:.1f} | {cost} |"
        )
    return "\n".join(lines)


def _sizes(workdir, results, exports):
    lines = [
        f"- {results['parameters']:,} trainable parameters.",
        f"- `model.keras`, with the state of the optimizer: "
        f"{workdir.model.stat().st_size:,} bytes.",
    ]
    for export in run_facts.exports(workdir, exports):
        precision = export["report"].get("precision")
        what = export["kind"] + (f", {precision}" if precision else "")
        older = ", written before model.keras" if export["older"] else ""
        name = _code(export["name"])
        lines.append(f"- `{name}` ({what}): {export['bytes']:,} bytes{older}.")
        if export["kind"] == ".tflite" and (rows := _agreements(export["report"])):
            lines[-1] += (
                f" {min(rows):.1%} of the images or more have the network's class."
            )
    return "\n".join(lines)


def _agreements(report):
    return [
        row["agreement_of_all"] for row in run_facts.rows(".tflite", report).values()
    ]


def _terms(license, flags):
    weights = (
        f"The weights: {_plain(license)}."
        if license
        else "Nobody has said yet under which terms the weights may be used "
        "(`python -m tools.model_card --license=...` does)."
    )
    images = f"The images of `{dataset(flags)}` have terms of their own."
    if flags["dataset"] == "shapes":
        images = "The images are generated by rs_keras."
    for start in _starts(flags):
        images += f" So do the weights in `{start}`, from which it started."
    code = "rs_keras, which reads the file, is under the Apache License 2.0."
    return f"{weights} {images} {code}"


def _limits(flags, results, training, images):
    number = f"{images['val']:,} " if images else ""
    classes = len(results["classes"])
    lines = [
        f"- Accuracy was measured on {number}validation images of the same dataset. On "
        "photographs from elsewhere it may be lower.",
        f"- Every image is given one of the {classes} classes, whatever it shows. "
        "Whether the probabilities are calibrated was not measured.",
        "- Robustness, and differences between groups of people or places, were not "
        "tested.",
    ]
    sides = flags["resolutions"].split(",")
    lines.append(
        f"- Other resolutions than {', '.join(sides)} pixels were not measured. "
        + elsewhere(flags)
    )
    rows = results["resolutions"].values()
    gap = max(row["top1"] - row["mean_class"] for row in rows)
    if gap > 0.02:
        lines.append(
            f"- Classes differ: the mean of their accuracies is up to {100 * gap:.1f} "
            "points below the accuracy of all images."
        )
    if training["skipped_steps"]:
        lines.append(
            "- Steps of the training that were left out, because their loss was not "
            f"finite: {training['skipped_steps']:,}."
        )
    if flags.get("weight_bits", "32") != "32":
        lines.append(
            "- `model.keras` holds and computes floats: few bits save bytes in what "
            "`tools.pack` and `tools.export_tflite` write."
        )
    return "\n".join(lines)


def course(training):
    """How long a training was, in words; of `run_facts.training`."""
    if not training["epochs"]:
        return "Epochs: not recorded"
    text = f"Epochs: {training['epochs']}, steps: {training['steps']:,}"
    if training["seconds"]:
        text += f", time: {progress.duration(training['seconds'])}"
    return text


def elsewhere(flags):
    """What a network does at resolutions that it was not trained at."""
    if flags["method"] == "shared_bn":
        return "Every resolution has the one batch normalization."
    if "," not in flags["resolutions"]:
        return "Any resolution has the batch normalization of the trained one."
    return (
        "Between trained resolutions batch normalization is interpolated; beyond them "
        "it is that of the nearest."
    )


def _starts(flags):
    """The files whose weights a run started from."""
    own = flags["model"] not in flag_definitions.MODELS
    found = (flags["model"] if own else None, flags.get("init_from"))
    return [_code(_last(path)) for path in found if path]


def dataset(flags):
    """--dataset without directories, which are no business of readers."""
    kind, colon, rest = flags["dataset"].partition(":")
    return _code(f"folder:{_last(rest)}" if kind == "folder" else flags["dataset"])


def _last(path):
    return pathlib.PurePath(path).name or path


def _code(text):
    """Text between backticks."""
    return " ".join(text.replace("`", "'").split())


def _plain(text):
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~$])", r"\\\1", " ".join(text.split()))

"""What the files of a finished run say of it: for the report and the model card."""

import json
import pathlib
import zipfile

from rs_keras import train_config

# {kind of export: keys of its report, and of each row of its table}
_EXPORTS = {
    ".tflite": ("bytes_by_kind", "verification", "layout", "precision"),
    "SavedModel": ("signatures",),
    "packed": ("quantized_weights", "logits"),
}
_ROWS = {
    ".tflite": ("error", "agreement", "agreement_of_all", "delegated", "operators"),
    "SavedModel": ("error", "image"),
    "packed": ("largest_difference", "same_class"),
}
# Of results.json, and of each resolution there.
_RESULTS = "resolutions ensemble alpha parameters classes skipped_images".split()
_RESULT = ("top1", "top5", "mean_class", "macs")


def flags(workdir):
    """{flag: text} of a run."""
    return train_config.flag_values(workdir.flags.read_text())


def lines(path):
    """The lines of a .jsonl of a run, as dicts; none where there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def results(workdir):
    """What results.json holds.

    Raises:
        ValueError: there is none, or it is not that of a run.
    """
    try:
        found = json.loads(workdir.results.read_text("utf-8"))
        [found[key] for key in _RESULTS]
        for row in found["resolutions"].values():
            [row[key] for key in _RESULT]
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_of_a_run(workdir.results) from error


def images(workdir):
    """{"train", "val"}: how many images a run had; None where that is not recorded.

    Raises:
        ValueError: data.json is not that of a run.
    """
    if not workdir.data.exists():
        return None
    try:
        found = json.loads(workdir.data.read_text("utf-8"))["images"]
        return {split: int(found[split]) for split in ("train", "val")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_of_a_run(workdir.data) from error


def _not_of_a_run(path):
    return ValueError(
        f"{path.name} must be there as training wrote it; its command writes it again. "
        f"Received: {path}"
    )


def training(workdir):
    """{"epochs", "steps", "seconds", "skipped_steps", "date", "keras"} of a run.

    Seconds are those of the epochs and their validation, without starts and without
    what was interrupted; the date is that at which model.keras was written, by that
    version of Keras. No epochs: they are not recorded.

    Raises:
        ValueError: model.keras is damaged.
    """
    metrics, timing = lines(workdir.metrics), lines(workdir.timing)
    try:
        with zipfile.ZipFile(workdir.model) as archive:
            metadata = json.loads(archive.read("metadata.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"The file must be a whole .keras file. Received: {workdir.model}"
        ) from error
    return {
        "epochs": len(metrics),
        "steps": metrics[-1]["step"] if metrics else 0,
        "seconds": sum(
            line["seconds"] + line.get("validation_seconds", 0) for line in timing
        ),
        "skipped_steps": len(lines(workdir.nonfinite)),
        "date": metadata["date_saved"].replace("@", " "),
        "keras": metadata["keras_version"],
    }


def exports(workdir, paths=()):
    """The reports of exports that lie in a workdir, and of others that are named.

    Args:
        workdir: of the run.
        paths: .tflite files, whose report lies beside them, or files that an export
            wrote with --json.

    Returns:
        [{"name", "kind": ".tflite", "SavedModel" or "packed", "bytes", "older": whether
        model.keras was written later, "report"}, ...], each once.

    Raises:
        ValueError: one that is named is no report of an export.
    """
    found = []

    def add(path, kind, report):
        if not any(report == other["report"] for other in found):
            found.append(_export(workdir, path, kind, report))

    for path in sorted(workdir.path.rglob("*.json")):
        kind, report = _read(path)
        if kind:
            add(path, kind, report)
    for name in paths:
        path = pathlib.Path(name)
        if path.suffix == ".tflite":
            path = path.with_name(f"{path.name}.report.json")
        kind, report = _read(path)
        if kind is None:
            raise ValueError(
                "--exports must be .tflite files with their report beside them, or "
                "files that an export wrote with --json. "
                f"Received: --exports={name}"
            )
        add(path, kind, report)
    return found


def _read(path):
    """(kind, report) of a file; (None, None) if it is no report of an export."""
    try:
        report = json.loads(path.read_text("utf-8"))
        for kind, keys in _EXPORTS.items():
            if all(key in report for key in ("bytes", *keys)):
                _bytes(report)
                for row in rows(kind, report).values():
                    [row[key] for key in _ROWS[kind]]
                return kind, report
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None, None


def rows(kind, report):
    """{signature or resolution: its row} of the report of an export."""
    if kind == ".tflite":
        checked = report["verification"]
        return {} if checked == "off" else checked["signatures"]
    return report["signatures" if kind == "SavedModel" else "logits"]


def _bytes(report):
    size = report["bytes"]
    if isinstance(size, dict):
        size = size["total"] if "total" in size else sum(size.values())
    return int(size)


def _export(workdir, path, kind, report):
    return {
        "name": path.name.removesuffix(".report.json").removesuffix(".json"),
        "kind": kind,
        "bytes": _bytes(report),
        "older": path.stat().st_mtime < workdir.model.stat().st_mtime,
        "report": report,
    }


def titles(workdirs):
    """{workdir: its name, or its path where several have that name}.

    Raises:
        ValueError: one is there twice.
    """
    paths = [workdir.path.resolve() for workdir in workdirs]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ValueError(
                f"Each run can be there once. Received: {workdirs[number].path} twice"
            )
    names = [path.name for path in paths]
    return {
        workdir: name if names.count(name) == 1 else str(workdir.path)
        for workdir, name in zip(workdirs, names, strict=True)
    }

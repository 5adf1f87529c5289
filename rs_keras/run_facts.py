"""What the files of a finished run say of it: for the report and the model card."""

import json
import pathlib
import zipfile

from rs_keras import train_config

# {kind of export: a key that its report alone has}
_KINDS = {
    "SavedModel": "signatures",
    ".tflite": "bytes_by_kind",
    "packed": "quantized_weights",
}


def flags(workdir):
    """{flag: text} of a run."""
    return train_config.flag_values(workdir.flags.read_text())


def lines(path):
    """The lines of a .jsonl of a run, as dicts; none where there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def images(workdir):
    """{"train", "val"}: how many images a run had; None where that is not recorded."""
    if not workdir.data.exists():
        return None
    return json.loads(workdir.data.read_text())["images"]


def training(workdir):
    """{"epochs", "steps", "seconds", "skipped_steps", "date", "keras"} of a run.

    Seconds are those of training and validation, without starts; the date is that at
    which model.keras was written, by that version of Keras.
    """
    metrics, timing = lines(workdir.metrics), lines(workdir.timing)
    with zipfile.ZipFile(workdir.model) as archive:
        metadata = json.loads(archive.read("metadata.json"))
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
        model.keras was written later, "report"}, ...].

    Raises:
        ValueError: one is no report of an export.
    """
    found = []
    for path in sorted(workdir.path.rglob("*.json")):
        kind, report = _read(path)
        if kind:
            found.append(_export(workdir, path, kind, report))
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
        if not any(path.samefile(other["path"]) for other in found):
            found.append(_export(workdir, path, kind, report))
    return [{k: v for k, v in one.items() if k != "path"} for one in found]


def _read(path):
    """(kind, report) of a file; (None, None) if it is no report of an export."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None, None
    if not isinstance(report, dict) or "bytes" not in report:
        return None, None
    kinds = [kind for kind, key in _KINDS.items() if key in report]
    return (kinds[0], report) if kinds else (None, None)


def _export(workdir, path, kind, report):
    size = report["bytes"]
    if isinstance(size, dict):
        size = size.get("total") or sum(size.values())
    return {
        "name": path.name.removesuffix(".report.json").removesuffix(".json"),
        "kind": kind,
        "bytes": size,
        "older": path.stat().st_mtime < workdir.model.stat().st_mtime,
        "report": report,
        "path": path,
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

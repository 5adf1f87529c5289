"""What there is to measure of .tflite files: where images of which size go in."""

import dataclasses
import json
import os
import pathlib

from rs_keras.profiling import tflite_client

RESOLUTIONS = (224, 192, 160, 128, 96)


@dataclasses.dataclass
class Entry:
    """What is measured as one: a file, or several that are loaded together.

    Attributes:
        title: for tables.
        paths: list of the files'.
        layout: "dynamic" if the size of images is open, or else "signatures".
        places: {resolution, or "HxW": where such images go in, see
            `tflite_process.Server.load`}.
    """

    title: str
    paths: list
    layout: str
    places: dict

    @property
    def bytes(self):
        return sum(os.path.getsize(path) for path in self.paths)


def entry(title, paths, resolutions=None, default=RESOLUTIONS):
    """What there is to measure of files that are loaded together.

    Args:
        title: for tables.
        paths: of .tflite files; where two take one size, the first is measured.
        resolutions: for files that take all sizes; default: those of the report beside
            the file.
        default: resolutions where there is no report.

    Raises:
        ValueError: a file cannot be read as one that takes images.
    """
    places, layout = {}, "signatures"
    for index, path in enumerate(map(str, paths)):
        for signature in _signatures(path):
            name, (batch, *sides, channels), dtype = _image_input(path, signature)
            sizes = [sides]
            if min(sides) < 0:
                layout = "dynamic"
                sizes = [(r, r) for r in resolutions or _reported(path, default)]
            for height, width in sizes:
                size = height if height == width else f"{height}x{width}"
                place = {
                    "file": index,
                    "key": signature["key"],
                    "input": name,
                    "shape": [max(batch, 1), height, width, channels],
                    "dtype": dtype,
                    "open": min(batch, *sides) < 0,
                }
                places.setdefault(size, place)
    squares = sorted((s for s in places if isinstance(s, int)), reverse=True)
    others = [s for s in places if not isinstance(s, int)]
    ordered = {size: places[size] for size in (*squares, *others)}
    return Entry(title, [str(path) for path in paths], layout, ordered)


def _signatures(path):
    """What `tflite_process.Server.inspect` finds; ValueError if it is no .tflite."""
    if not os.path.isfile(path):
        raise ValueError(f"A .tflite file must be there. Received: {path}")
    with open(path, "rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise ValueError(f"It must be a .tflite file. Received: {path}")
    with tflite_client.Process() as process:
        try:
            signatures = process.ask("inspect", path=path)
        except tflite_client.Failure as failure:
            raise ValueError(
                f"LiteRT must be able to load the file. Received: {path}: {failure}"
            ) from failure
    if not signatures:
        raise ValueError(f"A .tflite file must have signatures. Received: {path}")
    return signatures


def _image_input(path, signature):
    """(name, shape (N, H, W, C), dtype) of the one input of a signature."""
    inputs = signature["inputs"]
    if len(inputs) == 1:
        ((name, found),) = inputs.items()
        shape, dtype = found["shape"], found["dtype"]
        if len(shape) == 4 and shape[3] > 0 and dtype in ("float32", "uint8", "int8"):
            return name, shape, dtype
    raise ValueError(
        "Each signature must take images, (N, H, W, channels), and nothing else. "
        f"Received: {path}, whose {signature['key']} takes {inputs}"
    )


def _reported(path, default):
    report = pathlib.Path(f"{path}.report.json")
    try:
        return json.loads(report.read_text())["resolutions"]
    except FileNotFoundError:
        return default
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "The report beside a file must be the one that its export has written; "
            f"name --resolutions where it is not. Received: {report}"
        ) from error

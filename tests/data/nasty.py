"""Where the files for robustness tests lie, and what is to be expected of each."""

import csv
import pathlib

import pytest

# The files are shared by several checkouts and lie beside this one.
DIRECTORY = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "nasty"
KEPT = {"yes", "yes-by-content", "first-frame"}
SKIPPED = {"no", "skip", "partial"}


def files():
    """The directory of the files; skips the test where they are not there."""
    if not (DIRECTORY / "files").is_dir():
        pytest.skip(f"{DIRECTORY} is not there")
    return DIRECTORY / "files"


def expectations():
    """{path in the directory: what the manifest expects}."""
    root = files()
    with open(root.parent / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["file"].removeprefix("files/"): row["expected"] for row in rows}

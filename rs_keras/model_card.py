"""The model card of a run: written at the end of a training, kept once it is edited."""

import hashlib
import json
import pathlib
import re

from rs_keras import workdir as workdir_lib
from rs_keras.report import card

NAME = "model_card.md"
_SEAL = "<!-- Written by rs_keras; once changed by hand, kept. sha256 of the above: "


def write(workdir, path=None, *, license=None, exports=(), overwrite=False):
    """Writes the card of a finished run.

    Args:
        workdir: of the run.
        path: of the file; default: the workdir's model_card.md.
        license: of the weights, as an SPDX identifier or in words; default: that of
            the card that is there, or in the workdir.
        exports: as of `run_facts.exports`.
        overwrite: whether to replace a file that was changed by hand.

    Returns:
        The path.

    Raises:
        ValueError: the file was changed by hand, or is none that this function wrote.
    """
    path = pathlib.Path(path or workdir.path / NAME)
    if _edited(path) and not overwrite:
        raise ValueError(
            "The file was written, or changed, by hand; choose another --output, or "
            f"--overwrite. Received: {path}"
        )
    license = license or _license(path) or _license(workdir.path / NAME)
    found = card.text(workdir, license, exports)
    # Names of files may hold bytes that are no text.
    found = found.encode("utf-8", "replace").decode("utf-8")
    workdir_lib.write_text(path, f"{found}{_SEAL}{_sum(found)} -->\n")
    return path


def write_at_end(workdir):
    """Writes the card of a run that has just ended, but over none changed by hand.

    Returns:
        A sentence on what was done: whatever happens here, the run is done.
    """
    path = workdir.path / NAME
    try:
        if _edited(path):
            return (
                f"{path} was changed by hand and stays as it is, numbers included; "
                "`python -m tools.model_card --output=...` writes another"
            )
        return f"Written: {write(workdir, path)}"
    except (ValueError, OSError) as error:
        return f"warning: {path} was not written: {error}"


def _sum(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _edited(path):
    """Whether there is a file that is not as it was written here."""
    if not path.exists():
        return False
    body, seal, rest = path.read_text("utf-8", "replace").rpartition(_SEAL)
    return not seal or rest != f"{_sum(body)} -->\n"


def _license(path):
    """The licence that a card's front matter names; None where there is none."""
    if not path.exists():
        return None
    front = path.read_text("utf-8", "replace").split("\n---\n")[0]
    lines = dict(re.findall(r"^(license(?:_name)?): *(\S.*)$", front, re.M))
    found = lines.get("license_name") or lines.get("license")
    if found is None:
        return None
    try:
        return str(json.loads(found))  # as it is written here
    except ValueError:
        return found.strip("'\" ")  # as people write it

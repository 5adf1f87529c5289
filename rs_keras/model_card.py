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
            the card that is there.
        exports: as of `run_facts.exports`.
        overwrite: whether to replace a file that was changed by hand.

    Returns:
        The path.

    Raises:
        ValueError: the file was changed by hand, or is none that this function wrote.
    """
    path = pathlib.Path(path or workdir.path / NAME)
    if path.exists() and not overwrite and not _unchanged(path):
        raise ValueError(
            "The file was written, or changed, by hand; choose another --output, or "
            f"--overwrite. Received: {path}"
        )
    found = card.text(workdir, license or _license(path), exports)
    # Names of files may hold bytes that are no text.
    found = found.encode("utf-8", "replace").decode("utf-8")
    workdir_lib.write_text(path, f"{found}{_SEAL}{_sum(found)} -->\n")
    return path


def write_at_end(workdir):
    """Writes the card of a run that has just ended, but over none changed by hand.

    Returns:
        A sentence on what was done.
    """
    path = workdir.path / NAME
    if path.exists() and not _unchanged(path):
        return f"{path} was changed by hand and stays as it is"
    return f"Written: {write(workdir, path)}"


def _sum(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _unchanged(path):
    body, seal, rest = path.read_text("utf-8", "replace").rpartition(_SEAL)
    return bool(seal) and rest == f"{_sum(body)} -->\n"


def _license(path):
    """The licence that a card names; None where there is none."""
    if not path.exists():
        return None
    found = re.search(r"^license: (\".*\")$", path.read_text("utf-8", "replace"), re.M)
    return found and json.loads(found[1])

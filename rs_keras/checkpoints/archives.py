"""Zip files of other people: looked at before they are unpacked."""

import zipfile

# What is kept in them is tensors, as they are; only short texts would shrink.
EXPANSION = 20


def check_expansion(path, kind):
    """Raises ValueError if a zip file claims to unpack to many times its size.

    Args:
        path: `pathlib.Path` of the file.
        kind: what it is, for the message.
    """
    with zipfile.ZipFile(path) as file:
        unpacked = sum(entry.file_size for entry in file.infolist())
    if unpacked > EXPANSION * path.stat().st_size:
        raise ValueError(
            f"A {kind} file must unpack to at most {EXPANSION} times its size. "
            f"Received: {path}, which claims {unpacked / 1e6:.0f} MB"
        )

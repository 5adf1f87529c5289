"""What becomes of each file of a directory of images: used, or skipped, and why.

    python benchmarks/nasty_files.py --directory=DIR [--json=FILE]

Decodes each file as the scan of a training run does, and prints a table. Prints a JSON
line at the end: how many were used, the seconds that it took, and the peak of memory.
"""

import argparse
import json
import os
import pathlib
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rs_keras.data import folder
from rs_keras.data import scan


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--json")
    args = parser.parse_args()
    found, passed = {}, {}
    root = pathlib.Path(args.directory)
    paths = folder.files(root, passed)
    before, start = _peak(), time.perf_counter()
    for path in paths:
        found[path] = scan.examine(path)[0]
    summary = {
        "used": sum(why is None for why in found.values()),
        "files": len(found) + len(passed),
        "seconds": round(time.perf_counter() - start, 2),
        "peak_mb": _peak(),
        "peak_mb_before": before,
    }
    table = {}
    for path, why in sorted((found | passed).items()):
        name = scan.as_text(os.path.relpath(path, root))
        table[name] = f"skipped: {why}" if why else "used"
        print(f"{name:<44} {table[name]}")
    print(json.dumps(summary))
    if args.json:
        text = json.dumps({**summary, "verdicts": table}, indent=1)
        pathlib.Path(args.json).write_text(text + "\n", encoding="utf-8")


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()

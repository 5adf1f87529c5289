"""Time and memory of the files that `benchmarks/tflite_files.py --stock` has written.

    python benchmarks/tflite_cost.py --files=DIR [--model=NAME] [--runs=40]

Prints a JSON line for each network, what `tflite_cost.measure` returns: ratios of time
are to the converter's five files, one for each resolution, loaded together; the
converter's file of 224 alone is there for its memory. One thread.
"""

import argparse
import json
import pathlib

from rs_keras.export import tflite
from rs_keras.profiling import tflite_cost
from rs_keras.profiling import tflite_entry

RESOLUTIONS = (224, 192, 160, 128, 96)
APIS = ("interpreter", "compiled_model")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=pathlib.Path, required=True)
    parser.add_argument("--model", action="append")
    parser.add_argument("--runs", type=int, default=40)
    args = parser.parse_args()
    found = sorted(path.name for path in args.files.glob("*_signatures_*.tflite"))
    models = args.model or sorted({n.partition("_signatures_")[0] for n in found})
    for model in models:
        entries = list_entries(args.files, model)
        report = tflite_cost.measure(entries, APIS, runs=args.runs, progress=str)
        for file in report["files"]:
            del file["paths"]
        print(json.dumps({"model": model, **report}))


def list_entries(directory, model):
    """The converter's files, and then ours."""
    # Low-bit networks are compared with the float one.
    stock = model.removesuffix("_w2a2")
    paths = [directory / f"{stock}_stock_{r}.tflite" for r in RESOLUTIONS]
    entries = [
        tflite_entry.entry("one file a resolution", paths),
        tflite_entry.entry("one file of 224", paths[:1]),
    ]
    for layout, precisions in tflite.LAYOUTS.items():
        for precision in precisions:
            path = directory / f"{model}_{layout}_{precision}.tflite"
            if path.exists():
                title = f"{layout} {precision}"
                entries.append(tflite_entry.entry(title, [path], RESOLUTIONS))
    return entries


if __name__ == "__main__":
    main()

"""Accuracy of .tflite files on the validation set of the run that they come from.

    python benchmarks/tflite_accuracy.py --workdir=DIR --file=model.tflite [--file=…]

Prints a JSON line: {file: {resolution: {"top1", "top5", "mean_class"}}}, with the
network's own numbers from results.json first.
"""

import argparse
import json
import pathlib

import numpy as np
from ai_edge_litert import interpreter as litert

from rs_keras import run_data
from rs_keras import workdir as workdir_lib
from rs_keras.evaluation import evaluator


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--file", action="append", required=True)
    args = parser.parse_args()
    workdir = workdir_lib.Workdir(args.workdir)
    results = json.loads(workdir.results.read_text())
    resolutions = [int(r) for r in results["resolutions"]]
    source = run_data.open_source(workdir, "val")
    dataset = run_data.val_dataset(workdir, source, resolutions, batch_size=64)
    found = {"network": results["resolutions"]}
    for file in args.file:
        found[pathlib.Path(file).name] = evaluate(file, dataset, resolutions, results)
    print(json.dumps(found))


def evaluate(file, dataset, resolutions, results):
    """{resolution: accuracies} of one file."""
    model = litert.Interpreter(file, num_threads=2)
    keys = model.get_signature_list()
    runs = {
        r: model.get_signature_runner(f"r{r}" if f"r{r}" in keys else "serving_default")
        for r in resolutions
    }
    counts = {r: evaluator.Accuracy(len(results["classes"])) for r in resolutions}
    batches = ((images, np.asarray(labels)) for images, labels in dataset)
    for images, labels in batches:
        for r, run in runs.items():
            dtype = run.get_input_details()["image"]["dtype"]
            batch = np.asarray(images[r]).astype(dtype)
            # Integers are compared as they are: their scale is positive.
            logits = [np.array(run(image=i[None])["logits"], "float32") for i in batch]
            counts[r].update(labels, np.concatenate(logits))
    return {str(r): count.result() for r, count in counts.items()}


if __name__ == "__main__":
    main()

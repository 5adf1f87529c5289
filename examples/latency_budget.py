"""A latency budget kept by one TFLite file, on ai-edge-litert and numpy alone.

    python examples/latency_budget.py --model=model.tflite --budget_ms=30 --load

Runs generated frames at the resolution that the controller chooses, and prints each
switch and a summary. `--load` keeps every core busy in the middle third of the frames.
The file has a signature for each resolution (r224, r160, ...), or a single one,
serving_default, that takes images of any size; `--resolutions` are those to use then.
"""

import argparse
import os
import re
import subprocess
import sys
import time

import numpy as np
from ai_edge_litert import interpreter as litert

from rs_keras import latency_budget

CAMERA = 480
# Ends by itself when this program does, however it does.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--budget_ms", type=float, required=True)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resolutions", type=integers, help="such as 224,160,96")
    parser.add_argument("--load", action="store_true")
    flags = parser.parse_args()
    if not os.path.exists(flags.model):
        parser.error(f"--model must be a .tflite file. Received: {flags.model}")
    if flags.frames < 1:
        parser.error(f"--frames must be positive. Received: {flags.frames}")
    try:
        model = litert.Interpreter(flags.model, num_threads=flags.threads)
        runners = signature_runners(model, flags.resolutions)
        budget = latency_budget.LatencyBudget(runners, flags.budget_ms)
    except ValueError as error:
        parser.error(str(error))

    latencies, busy = [], []
    try:
        for t in range(flags.frames):
            if flags.load and t == flags.frames // 3:
                print(f"frame {t}: the load begins")
                command = [sys.executable, "-c", BUSY]
                busy = [subprocess.Popen(command) for _ in range(2 * os.cpu_count())]
            if t == 2 * flags.frames // 3:
                stop(busy)
            frame, resolution = camera(t), budget.resolution
            start = time.perf_counter()
            classify(runners[resolution], frame, resolution)
            milliseconds = 1000 * (time.perf_counter() - start)
            latencies.append((resolution, milliseconds))
            budget.observe(milliseconds)
            if budget.resolution != resolution:
                print(
                    f"frame {t}: {resolution} -> {budget.resolution} "
                    f"after {milliseconds:.1f} ms"
                )
    finally:
        stop(busy)
    summarize(latencies, flags.budget_ms)
    if not budget.within_budget:
        print("Even the smallest resolution takes longer than the budget.")


def integers(text):
    return [int(part) for part in text.split(",")]


def signature_runners(model, resolutions):
    """{resolution: callable}; a single signature of any size is listed for each."""
    names = model.get_signature_list()
    if "serving_default" in names and resolutions:
        runner = model.get_signature_runner("serving_default")
        return dict.fromkeys(resolutions, runner)
    found = {int(n[1:]): n for n in names if re.fullmatch(r"r[0-9]+", n)}
    if not found or resolutions:
        raise ValueError(
            "--resolutions must be given where the file takes images of any size, and "
            f"only there. Received: {resolutions}, signatures {sorted(names)}"
        )
    return {r: model.get_signature_runner(name) for r, name in found.items()}


def camera(t):
    """Frame t: (480, 480, 3) uint8 RGB, a bright square that moves over a gradient."""
    rows = np.linspace(0, 120, CAMERA, dtype="uint8")
    frame = np.stack(np.broadcast_arrays(rows[:, None], rows[None], np.uint8(60)), -1)
    x = 4 * t % (CAMERA - 120)
    frame[180:300, x : x + 120] = (240, 200, 40)
    return frame


def classify(runner, frame, resolution):
    """The class of a frame, which is shrunk by taking the nearest pixels."""
    nearest = np.arange(resolution) * len(frame) // resolution
    image = frame[nearest[:, None], nearest][None]
    dtype = runner.get_input_details()["image"]["dtype"]
    # Where the size is another one than that of the last call, buffers are made anew.
    return np.argmax(runner(image=image.astype(dtype))["probabilities"])


def stop(processes):
    if processes:
        print("the load has ended")
    while processes:
        process = processes.pop()
        process.kill()
        process.wait()


def summarize(latencies, budget_ms):
    within = np.mean([milliseconds <= budget_ms for _, milliseconds in latencies])
    print(f"{within:.1%} of {len(latencies)} frames within {budget_ms:g} ms")
    for resolution in sorted({r for r, _ in latencies}, reverse=True):
        taken = [milliseconds for r, milliseconds in latencies if r == resolution]
        print(
            f"{resolution:4} pixels: {len(taken) / len(latencies):6.1%} of the frames, "
            f"median {np.median(taken):.1f} ms"
        )


if __name__ == "__main__":
    main()

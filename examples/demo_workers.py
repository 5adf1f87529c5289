"""Two worker processes train one network on this machine; one is lost, and both go on.

    python examples/demo_workers.py --workdir=runs/demo_workers

On several machines the same command runs on each, with its addresses in TF_CONFIG and
a --workdir that all of them see. The first worker writes the files of the run. When a
worker is lost, the others end; started again, they go on from the last checkpoint.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

WORKERS = 2
DEFAULT = "runs/demo_workers"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", default=DEFAULT)
    parser.add_argument("--dataset", default="shapes")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--checkpoint_every", type=int, default=5)
    options = parser.parse_args()
    if options.workdir == DEFAULT:
        shutil.rmtree(DEFAULT, ignore_errors=True)
    elif os.path.exists(options.workdir):
        parser.error(f"--workdir must be new. Received: --workdir={options.workdir}")
    flags = [f"--{name}={value}" for name, value in vars(options).items()]

    print("Both workers start.")
    workers = start(flags)
    checkpoints = os.path.join(options.workdir, "checkpoints")
    while not os.path.isdir(checkpoints) or not find(checkpoints):
        if any(worker.poll() is not None for worker in workers):
            sys.exit("A worker ended before the first checkpoint.")
        time.sleep(0.2)
    print(f"{find(checkpoints)[-1]} is saved: worker 1 is killed.")
    killed = time.monotonic()
    workers[1].send_signal(signal.SIGKILL)
    code = workers[0].wait()
    seconds = time.monotonic() - killed
    print(f"Worker 0 ended {seconds:.0f} seconds later, with exit code {code}.")
    if code == 0:
        sys.exit("Worker 0 should have missed the other one.")

    print("Both workers start again, with the same command.")
    codes = [worker.wait() for worker in start(flags)]
    sys.exit(any(codes))


def find(checkpoints):
    return sorted(n for n in os.listdir(checkpoints) if n.startswith("epoch-"))


def start(flags):
    """Starts the workers; what they print gets their number in front."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(WORKERS)]
    hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    workers = []
    for index in range(WORKERS):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": hosts}, "task": task})
        process = subprocess.Popen(
            [sys.executable, "-m", "rs_keras.train", *COMMON, *flags],
            env={**os.environ, "TF_CONFIG": config},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=echo, args=(index, process.stdout)).start()
        workers.append(process)
    return workers


def echo(index, lines):
    for line in lines:
        print(f"worker {index}: {line}", end="", flush=True)


COMMON = (
    "--distribute=multi_worker",
    "--synchronized_bn",
    "--model=resnet18",
    "--width=0.125",
    "--resolutions=48,32",
    "--learning_rate=0.02",
    "--threads=1",
)

if __name__ == "__main__":
    main()

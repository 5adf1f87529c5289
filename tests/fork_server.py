"""A process that has imported TensorFlow, and forks another for each command.

The import is seconds of each `python -m rs_keras.train`, and is the same each time.
Nothing but it happens before a fork: no thread is running then, and TensorFlow, which
starts its runtime with the first operation, has none yet. Settings that a command makes
(threads, a seed) therefore work as ever. What differs from `python -m`: Keras is there
before the command asks for it, hashes of strings are the same in all processes of one
server, and tracebacks begin in this file.
"""

import gc
import json
import os
import runpy
import signal
import socket
import sys


def serve(channel):
    """Answers requests with exit codes; in a forked process, returns the request."""
    with channel.makefile("r", encoding="utf-8") as requests:
        # Ctrl-C in a terminal is meant for the tests, which then close the channel.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        while line := requests.readline():
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGINT, handler)
                break
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            channel.sendall(f"{code}\n".encode())
    channel.close()
    return json.loads(line) if line else None


def become(request):
    """Is from here on the process that `python -m module arguments` would be."""
    for number, path, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY),
        (2, request["stderr"], os.O_WRONLY),
    ):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv[1:] = request["arguments"]
    # Without a seed, NumPy's global generator draws other numbers in each process.
    # Python's does so by itself.
    sys.modules["numpy"].random.seed()
    if request["before"]:
        exec(request["before"], {})
    # It replaces argv[0].
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def main():
    channel = socket.socket(fileno=int(sys.argv[1]))
    del sys.argv[1:]
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    # Else the end of each process looks through, and so copies, all that was imported.
    gc.freeze()
    channel.sendall(f"{json.dumps(dict(os.environ))}\n".encode())
    request = serve(channel)
    if request is not None:
        become(request)


if __name__ == "__main__":
    main()

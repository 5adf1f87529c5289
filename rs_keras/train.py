"""Trains one network for several resolutions: python -m rs_keras.train --flagfile=...

SIGTERM and SIGINT (Ctrl-C) write a checkpoint and end the run; the same command goes on
with it, as after a crash.
"""

import contextlib
import os
import sys
import traceback

from rs_keras import config as config_lib
from rs_keras import flag_definitions
from rs_keras import workdir as workdir_lib
from rs_keras.training import cluster
from rs_keras.training import interruption


def main():
    task = cluster.Task()
    with interruption.Interruption() as stop, contextlib.ExitStack() as stack:
        workdir = None
        try:
            with config_lib.mistakes():
                config = config_lib.train_config()
                workdir = workdir_lib.Workdir(config.workdir)
                workdir.check_resumable(config)
                if config.distribute == "multi_worker":
                    task = cluster.task()
                if task.writes:
                    stack.enter_context(workdir.locked())
                    workdir.check_resumable(config)  # what it has by now
            _train(config, workdir, stop, task)
            code = 0
        except interruption.Stopped as stopped:
            stop.ignore()
            kept = workdir and task.writes and _how_to_go_on(workdir)
            print(f"Interrupted. {kept or ''}", file=sys.stderr)
            code = stopped.exit_code
        except SystemExit as end:
            if task.workers == 1:
                raise
            code = end.code
        except Exception:
            if task.workers == 1:
                raise
            traceback.print_exc()
            code = 1
        if task.workers > 1:
            _leave(code)
    sys.exit(code)


def _train(config, workdir, stop, task):
    # Here and not on top, so that a wrong flag is answered at once.
    with config_lib.mistakes():
        from rs_keras import run as run_lib
        from rs_keras.training import devices as devices_lib
        from rs_keras.training import devices_tensorflow

    try:
        with config_lib.mistakes():
            devices_lib.start(config.threads)
            if task.workers > 1:
                stop.default()
            devices = devices_lib.devices(config.distribute, task)
            stop.listen()  # TensorFlow has taken SIGTERM for several processes
            run = run_lib.Run(config, workdir, stop, devices)
        run.train()
        run.finish()
    except devices_tensorflow.LOST as error:
        if task.workers == 1:
            raise
        sys.exit(
            "error: Every process must stay alive, and in reach of the others; one is "
            f"not. Start all of them again. {_how_to_go_on(workdir)} "
            f"Received: {devices_tensorflow.reason(error)}"
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.exit(
            "error: The files of the run cannot be written "
            f"({error.strerror or error}). {_how_to_go_on(workdir)} "
            f"Received: --workdir={workdir.path}"
        )


def _how_to_go_on(workdir):
    from rs_keras.checkpoints import training_state

    return training_state.how_to_go_on(workdir.checkpoints)


def _leave(code):
    """Ends this process at once, as `sys.exit(code)` would.

    Ending as usual, TensorFlow (2.21) deletes its iterators and waits for threads that
    a process among several no longer has.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def console():
    """Entry point of `rs-keras-train`."""
    flag_definitions.define_train_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()

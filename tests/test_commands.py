"""A command that the tests run in a forked process is the one that a user runs."""

import sys

import pytest

from tests import commands

COMMANDS = (
    "rs_keras.train",
    "rs_keras.evaluate",
    "rs_keras.predict",
    "tools.activations",
    "tools.alpha",
    "tools.benchmark_tflite",
    "tools.bn_parameters",
    "tools.class_changes",
    "tools.compare_runs",
    "tools.export_saved_model",
    "tools.export_tflite",
    "tools.export_torch_checkpoint",
    "tools.hit_miss",
    "tools.import_torch_checkpoint",
    "tools.model_card",
    "tools.pack",
    "tools.plot_accuracy",
    "tools.report",
)
PROBE = '''
"""A module that says where it is, and ends as it is told."""
import os
import signal
import sys

print(__name__, sys.modules["__main__"].__doc__, repr(sys.stdin.read()))
print(sys.argv, sys.path[0], os.getcwd(), os.environ.get("HOME"))
print(sys.stdout.encoding, sys.stdout.line_buffering, sys.stdout.isatty())
print(sys.stderr.encoding, sys.stderr.line_buffering, sys.stderr.isatty())
print([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)])
print("note", file=sys.stderr)
endings = {
    "end": lambda: None,
    "code": lambda: sys.exit(3),
    "sentence": lambda: sys.exit("sentence"),
    "mistake": lambda: {}["mistake"],
    "abrupt": lambda: (sys.stdout.flush(), os._exit(4)),
    "signal": lambda: (sys.stdout.flush(), os.kill(os.getpid(), signal.SIGTERM)),
    # The tests may run in the background of a shell, which has it ignored.
    "interrupt": lambda: (
        signal.signal(signal.SIGINT, signal.default_int_handler),
        os.kill(os.getpid(), signal.SIGINT),
    ),
}
endings[sys.argv[1]]()
'''
ENDINGS = {
    "end": 0,
    "code": 3,
    "sentence": 1,
    "mistake": 1,
    "abrupt": 4,
    "signal": -15,
    "interrupt": -2,
}
forked = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are forked on Linux alone"
)


@pytest.fixture(scope="module")
def server():
    """The one of all tests."""
    return commands.fork_server()


@forked
def test_commands_are_forked_unless_the_environment_is_another(server, monkeypatch):
    assert server.differences(commands.environment()) == []
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delenv("PATH")
    assert server.differences(commands.environment()) == ["KERAS_BACKEND", "PATH"]


@forked
@pytest.mark.parametrize("ending, code", ENDINGS.items())
def test_a_forked_process_is_that_of_python_m(server, tmp_path, ending, code):
    (tmp_path / "probe.py").write_text(PROBE)
    arguments = ("probe", ending, "two words", "--é")
    fork = server.run(*arguments, cwd=tmp_path)
    process = commands.run_python_m(*arguments, cwd=tmp_path)
    assert fork.returncode == process.returncode == code
    assert fork.stdout == process.stdout and ending in fork.stdout
    assert fork.stderr.startswith("note\n") and process.stderr.startswith("note\n")
    assert fork.stderr.splitlines()[-1] == process.stderr.splitlines()[-1]


@forked
def test_what_is_changed_before_is_changed(server, tmp_path):
    (tmp_path / "probe.py").write_text("import json; print(json.dumps(1), __name__)")
    changed = {"cwd": tmp_path, "before": "import json; json.dumps = lambda _: 'two'"}
    for run in (server.run, commands.run_python_m):
        assert run("probe", **changed).stdout == "two __main__\n"
    assert server.run("probe", cwd=tmp_path).stdout == "1 __main__\n"


@forked
def test_no_thread_runs_at_a_fork_and_no_draw_is_shared(server, tmp_path):
    (tmp_path / "probe.py").write_text(
        "import os, random, sys, numpy\n"
        "assert 'tensorflow' in sys.modules\n"
        "from tensorflow.python.eager import context\n"
        "assert context._context is None\n"
        "for pid in (os.getpid(), os.getppid()):\n"
        "    assert len(os.listdir(f'/proc/{pid}/task')) == 1, pid\n"
        "print(random.random(), numpy.random.random())\n"
    )
    found = [server.run("probe", cwd=tmp_path) for _ in range(2)]
    assert [one.returncode for one in found] == [0, 0], found[0].stderr
    one, other = (one.stdout.split() for one in found)
    assert one[0] != other[0] and one[1] != other[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_answers_alike(command):
    for argument in ("--help", "--no_such_flag"):
        fork, process = (
            run(command, argument) for run in (commands.run, commands.run_python_m)
        )
        assert fork.returncode == process.returncode, fork.stderr
        assert fork.stdout == process.stdout
        assert fork.stderr.splitlines()[-1:] == process.stderr.splitlines()[-1:]


def test_every_command_is_one_of_these():
    found = {
        f"{folder}.{path.stem}"
        for folder in ("rs_keras", "tools")
        for path in (commands.ROOT / folder).glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert found == set(COMMANDS)

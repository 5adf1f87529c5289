"""A workdir: what may run in it, and files that are whole or not there."""

import types

import pytest

from rs_keras import workdir


def config(
    resume="auto", differences=(), changes=(), text="--seed=0\n--dataset=shapes\n"
):
    return types.SimpleNamespace(
        resume=resume,
        own_network=False,
        differences=lambda text: list(differences),
        changes=lambda text: list(changes),
        flagfile=lambda: text,
    )


def test_a_fresh_workdir_is_started_once(tmp_path):
    run = workdir.Workdir(tmp_path / "a" / "b")
    run.check_resumable(config())
    assert not run.path.exists()
    run.start(config())
    assert run.has_run() and run.flag("dataset") == "shapes"
    run.check_resumable(config())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"resume": "never"}, "The workdir already has a run; choose another"),
        (
            {"differences": ["--seed is 1 there, 2 here"]},
            "belongs to a run with other flags; choose another. Received: --workdir=",
        ),
    ],
)
def test_a_workdir_with_a_run_refuses(tmp_path, arguments, sentence):
    run = workdir.Workdir(tmp_path)
    run.start(config())
    run.metrics.write_text("{}\n")
    with pytest.raises(ValueError, match=sentence):
        run.check_resumable(config(**arguments))


def test_a_run_without_a_checkpoint_may_start_with_other_flags(tmp_path):
    run = workdir.Workdir(tmp_path)
    run.start(config())
    other = config(differences=["--seed is 1 there, 2 here"], text="--dataset=other\n")
    run.check_resumable(other)
    run.start(other)
    assert run.flag("dataset") == "other"
    (run.checkpoints / "epoch-0001-step-000001").mkdir(parents=True)
    with pytest.raises(ValueError, match="belongs to a run with other flags"):
        run.check_resumable(other)


def test_flags_that_may_change_are_told_and_written_down(tmp_path):
    run = workdir.Workdir(tmp_path)
    assert run.start(config()) == []
    run.metrics.write_text("{}\n")
    sentences = ["--epochs is 1 there, 2 here"]
    assert run.start(config(changes=sentences, text="--dataset=new\n")) == sentences
    assert run.flag("dataset") == "new"


def test_one_process_at_a_time_holds_a_workdir(tmp_path):
    run = workdir.Workdir(tmp_path / "a" / "run")
    with run.locked():
        with (
            pytest.raises(ValueError, match="is in use: .* held by process [0-9]+ on "),
            workdir.Workdir(run.path).locked(),
        ):
            pass
        run.start(config())
    with run.locked():
        pass


def test_a_workdir_in_which_nothing_was_started_is_removed_again(tmp_path):
    with workdir.Workdir(tmp_path / "a" / "run").locked():
        pass
    assert list(tmp_path.iterdir()) == []


def test_resume_must_needs_a_run_and_a_file_is_no_workdir(tmp_path):
    with pytest.raises(ValueError, match="--resume=must needs a workdir with a run"):
        workdir.Workdir(tmp_path / "no").check_resumable(config("must"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--workdir must be a directory. Received: "):
        workdir.Workdir(tmp_path / "file").check_resumable(config())


def test_files_of_something_else_are_not_touched(tmp_path):
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(ValueError, match="must be new, or hold a run .* results.json"):
        workdir.Workdir(tmp_path).check_resumable(config())


def test_an_unfinished_run_has_no_model(tmp_path):
    run = workdir.Workdir(tmp_path / "run")
    rule = r"must hold a finished run \(model.keras\). Received: .*run, "
    with pytest.raises(ValueError, match=f"{rule}which is not there"):
        run.trained_model()
    run.path.mkdir()
    with pytest.raises(ValueError, match=f"{rule}which has none"):
        run.trained_model()
    run.start(config())
    with pytest.raises(ValueError, match=f"{rule}whose run is unfinished"):
        run.trained_model()


def test_lines_after_the_restored_position_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        workdir.append_line(path, {"epoch": epoch})
    with open(path, "a") as file:
        file.write('{"epoch": 4, "lo')
    workdir.keep_lines(path, "epoch", 2)
    assert path.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    workdir.keep_lines(tmp_path / "none.jsonl", "step", 2)


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    workdir.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        workdir.write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}\n'

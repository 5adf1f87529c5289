"""Checkpoints: everything comes back, and a damaged one is refused."""

import os
import resource

import keras
import numpy as np
import pytest

from rs_keras.checkpoints import training_state


def make_model(units=3):
    model = keras.Sequential(
        [
            keras.layers.Dense(units, name="a"),
            keras.layers.BatchNormalization(name="b"),
        ],
        name="net",
    )
    model.build((None, 4))
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def state(model):
    return (*model.variables, *model.metrics_variables, *model.optimizer.variables)


def arrays(model):
    return [np.array(v) for v in state(model)]


def save(directory, model, epoch, step=0, **options):
    position = training_state.Position(epoch, step)
    found = training_state.arrays(model)
    return training_state.save(
        directory, found, position, data={"images": 4}, **options
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def randomized(model, seed):
    generator = np.random.default_rng(seed)
    for variable in state(model):
        variable.assign(generator.uniform(0, 9, variable.shape).astype(variable.dtype))
    return model


def test_restore_brings_every_variable_back_bit_for_bit(tmp_path):
    model = randomized(make_model(), 0)
    before = arrays(model)
    path = save(tmp_path, model, 3, 30)
    manifest = training_state.restore(path, randomized(model, 1))
    assert (manifest["epoch"], manifest["step"]) == (3, 30)
    assert manifest["data"] == {"images": 4}
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_newest_three_and_the_best_are_kept_and_no_temporary_stays(tmp_path):
    model = make_model()
    (tmp_path / ".epoch-0001.tmp").mkdir()
    for epoch, score in ((1, 0.5), (2, 0.9), (3, 0.9), (4, 0.2)):
        save(tmp_path, model, epoch - 1, 10)
        save(tmp_path, model, epoch, score=score)
    save(tmp_path, model, 4, 10)
    assert names(tmp_path) == [
        "epoch-0002",
        "epoch-0004",
        "epoch-0004-step-000010",
        "epoch-0005-step-000010",
    ]
    assert training_state.best(tmp_path).name == "epoch-0002"


def test_checkpoints_are_ordered_by_position_not_by_name(tmp_path):
    expected = ["epoch-9999", "epoch-10000-step-000002", "epoch-10000"]
    for name in (*expected, "epoch-x", "damaged-epoch-0001"):
        (tmp_path / name).mkdir()
    found = [p.name for p in training_state.list_checkpoints(tmp_path)]
    assert found == expected


def test_saving_an_epoch_again_replaces_it(tmp_path):
    model = randomized(make_model(), 0)
    save(tmp_path, model, 1)
    before = arrays(randomized(model, 5))
    path = save(tmp_path, model, 1)
    training_state.restore(path, randomized(model, 6))
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_half(tmp_path):
    """The limit on the size of a file stands for the disk: both end as OSError."""
    model = randomized(make_model(units=64), 0)
    path = save(tmp_path, model, 1)
    before = arrays(model)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError):
            save(tmp_path, randomized(model, 1), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["epoch-0001"]
    training_state.restore(path, model)
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_checkpoint_that_is_set_aside_is_not_found(tmp_path):
    path = save(tmp_path, make_model(), 1)
    assert training_state.set_aside(path).name == "damaged-epoch-0001"
    assert training_state.list_checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    ["truncate", "flip", "no manifest", "bad manifest", "changed manifest", "empty"],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = save(tmp_path, make_model(), 1)
    data = (path / "arrays.npz").read_bytes()
    if damage == "truncate":
        (path / "arrays.npz").write_bytes(data[:-10])
    elif damage == "flip":
        middle = len(data) // 2
        flipped = bytes([data[middle] ^ 1])
        (path / "arrays.npz").write_bytes(data[:middle] + flipped + data[middle + 1 :])
    elif damage == "no manifest":
        (path / "manifest.json").unlink()
    elif damage == "changed manifest":
        text = (path / "manifest.json").read_text()
        (path / "manifest.json").write_text(text.replace('"epoch": 1', '"epoch": 2'))
    elif damage == "empty":
        for name in ("arrays.npz", "manifest.json"):
            (path / name).write_bytes(b"")
    else:
        (path / "manifest.json").write_text("{")
    damaged = training_state.DamagedCheckpoint
    with pytest.raises(damaged, match="The checkpoint is damaged. Received: "):
        training_state.restore(path, make_model())


def test_a_checkpoint_of_another_network_or_format_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, make_model(), 1)
    other = keras.Sequential([keras.layers.Dense(3, name="c")], name="net")
    other.build((None, 4))
    other.compile(optimizer=keras.optimizers.SGD(), loss="mse")
    with pytest.raises(ValueError, match="belongs to another network. Received: "):
        training_state.restore(path, other)
    monkeypatch.setattr(training_state, "FORMAT", 99)
    newer = save(tmp_path, make_model(), 2)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="of format 99"):
        training_state.restore(newer, make_model())


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    model = make_model()
    model.variables[0].assign(np.full(model.variables[0].shape, np.inf))
    with pytest.raises(FloatingPointError, match="Received: .*kernel is not finite"):
        save(tmp_path, model, 1)
    assert names(tmp_path) == []

"""Checkpoints: everything comes back, and a damaged one is refused."""

import json

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


def arrays(model):
    return [np.array(v) for v in (*model.variables, *model.optimizer.variables)]


def randomized(model, seed):
    generator = np.random.default_rng(seed)
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(generator.uniform(0, 9, variable.shape).astype(variable.dtype))
    return model


def test_restore_brings_every_variable_back_bit_for_bit(tmp_path):
    model = randomized(make_model(), 0)
    before = arrays(model)
    path = training_state.save(tmp_path, model, epoch=3, step=30, data={"images": 4})
    manifest = training_state.restore(path, randomized(model, 1))
    assert (manifest["epoch"], manifest["step"]) == (3, 30)
    assert manifest["data"] == {"images": 4}
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_newest_three_are_kept_and_no_temporary_stays(tmp_path):
    model = make_model()
    for epoch in range(1, 6):
        training_state.save(
            tmp_path, model, epoch=epoch, step=epoch, data={"images": 4}
        )
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "epoch-0003",
        "epoch-0004",
        "epoch-0005",
    ]


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path):
    for name in ("epoch-10000", "epoch-9999"):
        (tmp_path / name).mkdir()
    names = [p.name for p in training_state.list_checkpoints(tmp_path)]
    assert names == ["epoch-9999", "epoch-10000"]


def test_saving_an_epoch_again_replaces_it(tmp_path):
    model = randomized(make_model(), 0)
    training_state.save(tmp_path, model, epoch=1, step=1, data={"images": 4})
    before = arrays(randomized(model, 5))
    path = training_state.save(tmp_path, model, epoch=1, step=1, data={"images": 4})
    training_state.restore(path, randomized(model, 6))
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", ["truncate", "flip", "no manifest", "bad manifest"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = training_state.save(
        tmp_path, make_model(), epoch=1, step=1, data={"images": 4}
    )
    data = (path / "arrays.npz").read_bytes()
    if damage == "truncate":
        (path / "arrays.npz").write_bytes(data[:-10])
    elif damage == "flip":
        middle = len(data) // 2
        flipped = bytes([data[middle] ^ 1])
        (path / "arrays.npz").write_bytes(data[:middle] + flipped + data[middle + 1 :])
    elif damage == "no manifest":
        (path / "manifest.json").unlink()
    else:
        (path / "manifest.json").write_text("{")
    damaged = training_state.DamagedCheckpoint
    with pytest.raises(damaged, match="The checkpoint is damaged. Received: "):
        training_state.restore(path, make_model())


def test_a_checkpoint_of_another_network_or_format_is_refused(tmp_path):
    path = training_state.save(
        tmp_path, make_model(), epoch=1, step=1, data={"images": 4}
    )
    other = keras.Sequential([keras.layers.Dense(3, name="c")], name="net")
    other.build((None, 4))
    other.compile(optimizer=keras.optimizers.SGD(), loss="mse")
    with pytest.raises(ValueError, match="belongs to another network. Received: "):
        training_state.restore(path, other)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["format"] = 99
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="of format 99"):
        training_state.restore(path, make_model())

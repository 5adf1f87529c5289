"""The run loop: what it calls, what it reports, and the grid that TensorBoard shows."""

import numpy as np
import pytest

from rs_keras.training import loop
from rs_keras.training import tensorboard


class Counter:
    """A model that counts its steps; its loss is the number of the step."""

    def __init__(self):
        self.steps = self.resets = 0

    def reset_metrics(self):
        self.resets += 1

    def step(self, batch, wish):
        self.steps += 1
        return self.get_metrics_result(), wish

    def get_metrics_result(self):
        return {"loss": np.float32(self.steps), "top1_64": np.float32(0.5)}


def batches(count):
    return ((None, np.zeros(4)) for _ in range(count))


def test_epochs_end_with_their_own_steps_logs_and_timing():
    model, ends, lines, steps = Counter(), [], [], []
    loop.train(
        model,
        model.step,
        batches(6),
        batch_size=4,
        steps=3,
        epochs=4,
        start=(2, 0),
        on_step=lambda *where: steps.append(where[:2]),
        on_epoch_end=lambda *end: ends.append(end),
        report=lines.append,
    )
    assert (model.steps, model.resets) == (6, 2)
    assert steps == [(2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)]
    assert [epoch for epoch, _, _ in ends] == [3, 4]
    assert [logs["loss"] for *_, logs, _ in ends] == [3.0, 6.0]
    assert all(0 <= timing["data_wait"] <= 1 for *_, timing in ends)
    assert all(timing["images_per_second"] > 0 for *_, timing in ends)
    assert lines[-1].startswith("epoch 4/4  step 3/3  loss 6.000  top1_64 0.500")
    assert "data wait" in lines[-1] and lines[-1].endswith("ETA 0:00")


@pytest.mark.parametrize(
    ("step", "steps", "resets"), [(2, [(0, 3), (1, 1)], 1), (3, [(1, 1)], 1)]
)
def test_an_epoch_goes_on_with_the_metrics_of_its_first_steps(step, steps, resets):
    """Also one whose steps are done and whose end is still to come."""
    model, ends, found = Counter(), [], []
    loop.train(
        model,
        model.step,
        batches(9),
        batch_size=4,
        steps=3,
        epochs=2,
        start=(0, step),
        on_step=lambda *where: found.append(where[:2]),
        on_epoch_end=lambda epoch, logs, timing: ends.append(epoch),
        report=lambda line: None,
    )
    assert found[: len(steps)] == steps
    assert (ends, model.resets) == ([1, 2], resets)


def test_grid_repeats_pixels_and_keeps_rows_in_order():
    large = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    small = np.full((2, 2, 2, 3), 7, np.uint8)
    small[:, 0, 0] = 9
    grid = tensorboard.image_grid({4: large, 2: small})
    assert grid.shape == (8, 8, 3)
    np.testing.assert_array_equal(grid[:4, :4], large[0])
    np.testing.assert_array_equal(grid[:4, 4:], large[1])
    assert (grid[4:6, :2] == 9).all() and (grid[6:, :4] == 7).all()


def test_curves_and_pictures_are_written(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    writer = tensorboard.Writer(tmp_path)
    writer.images({4: np.zeros((1, 4, 4, 3), np.uint8)})
    for epoch in (1, 2):
        writer.epoch(epoch, {"loss": 3.0 / epoch}, {64: 0.75, 32: 0.25})
    found = event_accumulator.EventAccumulator(
        str(tmp_path), size_guidance={"tensors": 0}
    ).Reload()
    assert set(found.Tags()["tensors"]) == {
        "loss",
        "alpha/64",
        "alpha/32",
        "what the network sees",
    }
    steps = [event.step for event in found.Tensors("loss")]
    assert steps == [1, 2]

"""The run loop: steps, progress, and what happens at the end of an epoch.

`fit()` would do for the steps; this loop is here for what it does not tell: how long
the step waits for data, and when the run will end.
"""

import time

import numpy as np

from rs_keras import progress

# Seconds between two lines of progress.
_REPORT_EVERY = 15.0


def train(
    model,
    step,
    batches,
    *,
    batch_size,
    steps,
    epochs,
    start=(0, 0),
    on_step,
    on_epoch_end,
    wish=lambda: False,
    report=print,
):
    """Trains a compiled model.

    Args:
        model: a model with `MultiResolutionTrainer`, for its metrics.
        step: function (batch, wish) -> (logs, wished); see `Devices.step`.
        batches: iterator of batches from `start` on, one epoch after the other.
        batch_size: images a step.
        steps: steps an epoch.
        epochs: the epoch, counted from 0, before which training stops.
        start: (finished epochs, steps done of the next); the metrics of the model are
            those of these steps.
        on_step: function (epoch counted from 0, steps done in it, logs, wished), called
            after each step.
        on_epoch_end: function (epoch counted from 1, logs, timing), called after each;
            logs are the training metrics, timing is {"seconds", "images_per_second",
            "data_wait"} (share of the time spent waiting) since the start.
        wish: function of no arguments: whether this process would like to stop.
        report: function of one line of progress.
    """
    first_epoch, first_step = start
    lines = _Progress(steps, epochs, report)
    for epoch in range(first_epoch, epochs):
        if first_step == 0:
            model.reset_metrics()
        begin, waited = time.perf_counter(), 0.0
        for number in range(first_step, steps):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            logs, wished = step(batch, wish())
            lines.step(epoch, number, logs, waited / (time.perf_counter() - begin))
            on_step(epoch, number + 1, logs, wished)
        images, first_step = (steps - first_step) * batch_size, 0
        # Not `logs`: there are none where only the validation was still to come.
        logs = {k: float(np.asarray(v)) for k, v in model.get_metrics_result().items()}
        seconds = time.perf_counter() - begin
        timing = {
            "seconds": seconds,
            "images_per_second": images / seconds,
            "data_wait": waited / seconds,
        }
        on_epoch_end(epoch + 1, logs, timing)


class _Progress:
    """A line every few seconds: where the run is, how it does, when it ends."""

    def __init__(self, steps, epochs, report):
        self._steps = steps
        self._epochs = epochs
        self._report = report
        self._start = self._last = self._first = None

    def step(self, epoch, step, logs, waited):
        now = time.perf_counter()
        done = epoch * self._steps + step + 1
        if self._start is None:
            # The first step also traces the graph: it says nothing about the pace.
            self._start = self._last = now
            self._first = done
            return
        last_step = step + 1 == self._steps
        if now - self._last < _REPORT_EVERY and not last_step:
            return
        self._last = now
        pace = (now - self._start) / max(done - self._first, 1)
        end = progress.duration(pace * (self._epochs * self._steps - done))
        top1 = "  ".join(
            f"{name} {float(np.asarray(value)):.3f}"
            for name, value in logs.items()
            if name.startswith("top1")
        )
        self._report(
            f"epoch {epoch + 1}/{self._epochs}  step {step + 1}/{self._steps}  "
            f"loss {float(np.asarray(logs['loss'])):.3f}  {top1}  "
            f"{pace:.2f} s/step  data wait {waited:.0%}  ETA {end}"
        )

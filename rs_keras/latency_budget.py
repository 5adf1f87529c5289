"""Keeps a latency budget by moving between the resolutions of one network.

Nothing is calibrated. The latency of a frame is seen as load x cost of the resolution
x noise, and the four rules below need no more than the frames that have run:

- Down on evidence: log(latency / budget) is summed up, never below zero (Page's test,
  "Continuous inspection schemes", 1954). A large excess is found in three frames, a
  small one in the end; one frame counts for a third at most, so neither a pause of the
  machine nor the first, slower frame after a switch is ever enough.
- Up on a forecast: where the median of the last frames says that the higher resolution
  takes less than `headroom` of the budget. The gap up to the budget is the hysteresis.
- A resolution that has to be left soon doubles the wait before the next climb to it,
  until the load is seen to have changed: at the border attempts become rare.
- Costs start as r^2; each switch measures one ratio. A ratio that is too low is found
  out by the next climb, one that is too high by nothing, as no climb is tried: so lower
  ones are believed at once, higher ones by half, and the next one up slowly fades.
"""

import collections
import itertools
import math
import numbers
import statistics

from rs_keras import resolutions as resolution_rules

SLOW_FRAMES = 3  # over the budget by more than the noise: these many are evidence
WINDOW = 15  # frames of which the median is taken, and the shortest wait for a climb
LONGEST_WAIT = 512
HELD = 128  # frames after which leaving a resolution is no failure any more
FORGET = 1000  # frames in which the ratio to the next resolution up fades to 1/e

# Of log(latency): the range of noise (standard deviation), and what counts as a change.
QUIETEST, NOISIEST = 0.03, 0.25
LOAD_CHANGE = 0.25
FLATTEST = 0.05  # the least that a ratio can be, as a share of what r^2 gives


class LatencyBudget:
    """Chooses the resolution of the next frame from the latencies of the last ones.

    It starts at the highest resolution and keeps the highest that it can.

        budget = latency_budget.LatencyBudget((224, 160, 96), budget_ms=30)
        for frame in frames:
            start = time.perf_counter()
            run(frame, budget.resolution)
            budget.observe(1000 * (time.perf_counter() - start))

    Whatever the load becomes, three frames over the budget by more than 1.5 times the
    noise (5% on a quiet machine, 25% for noise of 15%, never more than 46%) are left
    for a resolution that fits, and three more for the smallest one where the ratios
    were not known yet. A climb comes 15 frames after a switch at the earliest, and
    within 8 frames of a load that falls clearly where the ratios are known.

    Args:
        resolutions: iterable of positive, distinct ints, in pixels.
        budget_ms: positive number, the latency that a frame may take, in milliseconds.
        headroom: number between 0 and 1, the share of the budget within which a
            resolution must be expected to stay before it is chosen.

    Raises:
        ValueError: where one of these rules is broken.
    """

    def __init__(self, resolutions, budget_ms, headroom=0.9):
        self.resolutions = resolution_rules.check_resolutions(resolutions)
        if not _is_finite(budget_ms) or budget_ms <= 0:
            raise ValueError(
                "`budget_ms` must be a positive finite number, in milliseconds. "
                f"Received: budget_ms={budget_ms!r}"
            )
        if not _is_finite(headroom) or not 0 < headroom < 1:
            raise ValueError(
                "`headroom` must be a number between 0 and 1. "
                f"Received: headroom={headroom!r}"
            )
        self.budget_ms = budget_ms
        self.headroom = headroom
        # Latencies are logarithms of their share of the budget from here on. Rank i is
        # resolutions[i], and _ratios[i] the log of its latency over that of rank i + 1.
        self._by_area = [
            2 * math.log(a / b) for a, b in itertools.pairwise(self.resolutions)
        ]
        self._ratios = list(self._by_area)
        self._noise = 0.1
        # Frames to wait before the next climb to a rank.
        self._waits = [WINDOW] * len(self.resolutions)
        self._load = math.inf
        self._within_budget = True
        self._begin(rank=0, came_from=0, before=0.0)

    @property
    def resolution(self):
        """The resolution for the next frame, in pixels."""
        return self.resolutions[self._rank]

    @property
    def within_budget(self):
        """False while even the smallest resolution is found to exceed the budget."""
        return self._within_budget

    def observe(self, milliseconds):
        """Takes the latency of a frame at `resolution` and decides about the next one.

        Args:
            milliseconds: finite number, not negative.

        Raises:
            ValueError: where it is not.
        """
        if not _is_finite(milliseconds) or milliseconds < 0:
            raise ValueError(
                "`milliseconds` must be a finite number that is not negative. "
                f"Received: milliseconds={milliseconds!r}"
            )
        latency = math.log(min(max(milliseconds / self.budget_ms, 1e-3), 1e3))
        self._add(latency)
        if self._slow == 0:
            self._within_budget = True
        if self._slow == SLOW_FRAMES and self._rank < len(self._ratios):
            self._drop()
        elif self._slow == SLOW_FRAMES:
            self._within_budget = False
        elif len(self._window) == WINDOW:
            self._climb_if_it_fits()

    def _add(self, latency):
        if self._window:
            # Differences do not mind the load, and the minimum forgives single frames.
            change = min(abs(latency - self._window[-1]), 2 * self._noise)
            noise = self._noise + (change - self._noise) / WINDOW
            self._noise = min(max(noise, QUIETEST), NOISIEST)
        self._window.append(latency)
        self._frames += 1
        frame = min(max(latency / (1.5 * self._noise), -1.0), 1.0)
        self._slow = min(max(self._slow + frame, 0.0), SLOW_FRAMES)
        if self._frames == WINDOW:
            self._learn()

    def _drop(self):
        at_once = self._frames < WINDOW
        if at_once:
            self._learn()
        last = list(self._window)[-SLOW_FRAMES:]
        # As far as all of the last frames demand: the slowest of them may be odd.
        ranks = range(self._rank + 1, len(self._ratios))
        fitting = (rank for rank in ranks if self._fits(rank, min(last)))
        target = next(fitting, len(self._ratios))
        if self._came_from < self._rank and at_once:
            target = len(self._ratios)  # the second drop in a row is the last
        wait = WINDOW if self._frames >= HELD else 2 * self._waits[self._rank]
        self._waits[self._rank] = min(wait, LONGEST_WAIT)
        self._begin(target, self._rank, statistics.median(last))

    def _climb_if_it_fits(self):
        latency = statistics.median(self._window)
        load = latency - sum(self._ratios[self._rank :])
        if abs(load - self._load) > LOAD_CHANGE:
            self._load = load
            self._waits = [WINDOW] * len(self.resolutions)
        above = self._rank - 1
        if above >= 0:
            ratio = self._ratios[above] * (1 - 1 / FORGET)
            self._ratios[above] = max(ratio, FLATTEST * self._by_area[above])
        for rank in range(self._rank):
            if self._frames >= self._waits[rank] and self._fits(rank, latency):
                self._load = load
                self._begin(rank, self._rank, latency)
                return

    def _fits(self, rank, latency):
        """Whether `rank` would stay within the headroom; `latency` is that of now."""
        change = sum(self._ratios[rank:]) - sum(self._ratios[self._rank :])
        return latency + change <= math.log(self.headroom)

    def _begin(self, rank, came_from, before):
        """Takes `rank`; the latency was `before` at the rank `came_from`."""
        self._rank = rank
        self._came_from = came_from
        self._before = before
        self._window = collections.deque(maxlen=WINDOW)
        self._frames = 0
        self._slow = 0.0

    def _learn(self):
        """Scales the ratios that the last switch crossed to what it has shown."""
        upper, lower = sorted((self._came_from, self._rank))
        if upper == lower:
            return
        change = statistics.median(self._window) - self._before
        dropped = self._came_from < self._rank
        by_area = sum(self._by_area[upper:lower])
        measured = max(-change if dropped else change, FLATTEST * by_area)
        known = sum(self._ratios[upper:lower])
        if measured > known:
            # The frames before a drop were chosen for being slow: they show too much.
            measured = known if dropped else (known + measured) / 2
        for rank in range(upper, lower):
            self._ratios[rank] *= measured / known


def _is_finite(value):
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )

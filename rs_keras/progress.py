"""How far a long piece of work has come, and when it will end."""

import time

# Seconds between two lines.
EVERY = 5.0


class Progress:
    """Prints a line every few seconds.

    Args:
        work: what is done, as "scan".
        total: how many of `things` there are.
        things: what is counted.
    """

    def __init__(self, work, total, things):
        self._work, self._total, self._things = work, total, things
        self._done = 0
        self._start = self._last = time.perf_counter()

    def step(self):
        """One more is done."""
        self._done += 1
        now = time.perf_counter()
        if now - self._last > EVERY:
            self._last = now
            rate = self._done / (now - self._start)
            remaining = duration((self._total - self._done) / rate)
            print(
                f"{self._work} {self._done}/{self._total} {self._things}  "
                f"{rate:.3g}/s  ETA {remaining}"
            )


def duration(seconds):
    """Seconds as "1:02:03" or "2:03"."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

"""Lines of progress."""

import pytest

from rs_keras import progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05")]
)
def test_durations_read_like_a_clock(seconds, text):
    assert progress.duration(seconds) == text

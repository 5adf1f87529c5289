"""The arithmetic of resolutions, against the numbers of the reference."""

import pytest

from rs_keras import resolutions


def test_resolutions_are_kept_in_descending_order():
    assert resolutions.check_resolutions([96, 224, 160]) == (224, 160, 96)


@pytest.mark.parametrize(
    "wrong",
    [(), (224, 224), (0,), (-32, 64), (64.0,), ("64",), "64", 64, None, (True, 64)],
)
def test_resolutions_that_are_not_distinct_positive_integers_are_refused(wrong):
    with pytest.raises(ValueError) as error:
        resolutions.check_resolutions(wrong)
    assert str(error.value) == (
        "`resolutions` must be distinct positive integers, in pixels. "
        f"Received: resolutions={wrong!r}"
    )


@pytest.mark.parametrize("views", [0, -1, 1.5, True, "2"])
def test_views_that_are_not_positive_integers_are_refused(views):
    with pytest.raises(ValueError, match="`views` must be a positive integer. Rec"):
        resolutions.check_resolutions((64,), views=views)


def test_views_of_several_resolutions_are_refused():
    with pytest.raises(
        ValueError, match=r"needs exactly one resolution. Received: views=2, .*64, 32"
    ):
        resolutions.check_resolutions((64, 32), views=2)


def test_branches_are_named_by_resolution_or_by_view():
    assert resolutions.branch_keys((64, 32)) == (64, 32)
    assert resolutions.branch_keys((64,), views=2) == ("64_view1", "64_view2")


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        (224, (0, 0, 1.0)),
        (400, (0, 0, 1.0)),
        (208, (0, 1, 0.5)),
        (216, (0, 1, 0.75)),
        (160, (1, 2, 1.0)),
        (168, (0, 1, None)),
        (96, (2, 2, 1.0)),
        (1, (2, 2, 1.0)),
    ],
)
def test_interpolation_is_between_the_two_neighbours(resolution, expected):
    rows = (224, 192, 96) if resolution != 160 else (224, 160, 96)
    upper, lower, weight = resolutions.interpolation(resolution, rows)
    if resolution == 168:
        expected = (1, 2, (168 - 96) / (192 - 96))
    assert (upper, lower, weight) == expected


@pytest.mark.parametrize(
    ("resolution", "side"), [(224, 256), (192, 219), (160, 182), (128, 146), (96, 109)]
)
def test_validation_sizes_are_those_of_the_reference(resolution, side):
    # reference-facts.md, section 1.4; the golden image is 375 x 500.
    assert resolutions.validation_size(375, 500, resolution) == (
        side,
        int(side * 500 / 375),
    )
    assert resolutions.validation_size(500, 375, resolution)[1] == side


def test_centre_offsets_round_halves_to_even():
    assert [resolutions.centre_offset(n, 96) for n in (99, 101, 109)] == [2, 2, 6]

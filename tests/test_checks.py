"""One sentence for a number out of its range: the argument, the value, what would do."""

from math import inf, nan

import pytest

from lit_generative.checks import check_range


@pytest.mark.parametrize(
    ("value", "bounds", "allowed"),
    [
        (0, {"at_least": 1}, "at least 1"),
        (nan, {"at_least": 1}, "at least 1"),
        (0.0, {"above": 0}, "positive"),
        (-3, {"above": -2}, "above -2"),
        (2, {"at_most": 1}, "at most 1"),
        (1, {"below": 1}, "below 1"),
        (1.0, {"at_least": 0, "below": 1}, "in [0, 1)"),
        (0.0, {"above": 0, "at_most": 1}, "in (0, 1]"),
        (inf, {"above": 0}, "positive and finite"),
    ],
)
def test_a_number_out_of_range_is_refused_in_one_sentence(value: float, bounds: dict[str, float], allowed: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        check_range("lr", value, **bounds)
    assert str(refused.value) == f"lr={value}: it must be {allowed}"


def test_the_sentence_ends_with_the_hint() -> None:
    with pytest.raises(ValueError, match=r"steps=0: it must be at least 1; 50 are usual$"):
        check_range("steps", 0, at_least=1, hint="50 are usual")


@pytest.mark.parametrize("value", [None, 1, 1.0, 5])
def test_what_is_in_range_or_left_to_a_default_passes(value: float | None) -> None:
    check_range("steps", value, at_least=1, at_most=5)

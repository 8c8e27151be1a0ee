"""Errors as they are printed."""

import pytest

from galdiff.errors import GaldiffError


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("is missing", "a.csv: is missing. Name it"),
        ("has changed:\n  size: 1 -> 2", "a.csv: has changed:\n  size: 1 -> 2\nName it"),
    ],
)
def test_the_remedy_follows_a_sentence_and_ends_a_list(message, printed):
    assert str(GaldiffError(message, where="a.csv", remedy="Name it")) == printed

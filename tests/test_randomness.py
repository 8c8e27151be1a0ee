"""Random numbers against the published vectors of Philox, and the laws of counter-based streams."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galdiff.randomness import Draws, choose, integers, normal, permutation, philox, uniform

# Random123's kat_vectors (Salmon et al. 2011): counter, key, result of philox4x32 with ten rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
MANY = torch.arange(20_000)


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    got = philox([torch.tensor([word]) for word in words(counter)], tuple(words(key)))
    assert [int(word) for word in got] == words(result)


def draws(index):
    return {
        "uniform": uniform(5, "a", index, (3, 5)),
        "normal": normal(5, "a", index, (3, 5)),
        "integers": integers(5, "a", index, 17, (3, 5)),
    }


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=6))
def test_a_row_depends_on_its_index_alone(index):
    together = draws(torch.tensor(index))
    for row, i in enumerate(index):
        alone = draws(torch.tensor([i]))
        assert all(torch.equal(together[kind][row], alone[kind][0]) for kind in together)


@given(st.integers(0, 2**62), st.integers(1, 40), st.integers(1, 40))
def test_the_beginning_of_a_row_does_not_depend_on_its_length(index, first, second):
    index = torch.tensor([index])
    short, long = sorted((first, second))
    for draw in (uniform, normal):
        assert torch.equal(draw(0, "a", index, (short,)), draw(0, "a", index, (long,))[:, :short])


@given(st.integers(0, 2**62), st.integers(1, 64), st.lists(st.tuples(st.integers(-90, 90), st.integers(1, 40))))
def test_what_was_drawn_before_does_not_matter(start, ahead, jumps):
    draws = Draws(5, range(start, start + 1), ahead=ahead)
    for jump, size in [(0, 1), *jumps]:
        here = draws.at(range(max(0, start + jump), max(0, start + jump) + size))
        index = torch.as_tensor(here.positions)
        assert torch.equal(here.normal("a", (3, 5)), normal(5, "a", index, (3, 5)))
        assert torch.equal(here.uniform("a"), uniform(5, "a", index))
        assert torch.equal(here.integers("a", 17), integers(5, "a", index, 17))


def test_what_is_drawn_ahead_is_little_where_samples_are_large():
    drawn = Draws(5, range(3, 5)).normal("a", (3, 128, 128))
    assert torch.equal(drawn, normal(5, "a", torch.arange(3, 5), (3, 128, 128)))
    assert drawn.untyped_storage().nbytes() <= 2**24
    assert len(Draws(5, range(2)).normal("a", (2, 1024, 2048))) == 2


def test_indices_past_32_bits_do_not_wrap():
    assert not torch.equal(uniform(0, "a", torch.tensor([7])), uniform(0, "a", torch.tensor([7 + 2**32])))


@pytest.mark.parametrize("other", [(1, "a"), (0, "b")])
def test_seeds_and_streams_are_independent(other):
    x, y = uniform(0, "a", MANY).numpy(), uniform(*other, MANY).numpy()
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(len(MANY))
    assert (x == y).mean() < 1e-3


def test_neighboring_rows_are_independent():
    x = normal(0, "a", MANY, (2,)).numpy()
    for a, b in ((x[:-1, 0], x[1:, 0]), (x[:, 0], x[:, 1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(MANY))


def test_uniform_numbers_are_uniform():
    u = uniform(3, "u", MANY, (8,)).double().flatten().sort().values
    assert u.dtype == torch.float64
    assert 0 < u[0] < u[-1] < 1
    ideal = (torch.arange(len(u)) + 0.5) / len(u)
    assert (u - ideal).abs().max() < 1.95 / np.sqrt(len(u))  # Kolmogorov-Smirnov, one in a thousand


def test_normal_numbers_have_the_moments_of_a_normal():
    x = normal(3, "n", MANY, (9,)).double().flatten()
    n = len(x)
    assert x.isfinite().all()
    # Standard errors of the first four moments of n unit normal numbers.
    for power, moment, error in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs((x**power).mean().item() - moment) < 4 * error / n**0.5


@pytest.mark.parametrize("high", [1, 2, 7, 65_536])
def test_integers_fill_their_range_evenly(high):
    x = integers(3, "i", MANY, high, (4,))
    assert x.dtype == torch.int64
    assert int(x.min()) >= 0
    assert int(x.max()) < high
    if high < 100:
        counts = torch.bincount(x.flatten(), minlength=high).double()
        expected = x.numel() / high
        assert ((counts - expected).abs() < 5 * expected**0.5).all()


@pytest.mark.parametrize("high", [0, -1, 65_537])
def test_integers_out_of_range_are_refused(high):
    with pytest.raises(ValueError, match="high"):
        integers(0, "i", MANY, high)


@given(st.integers(0, 2**31), st.integers(0, 1000), st.integers(1, 500))
def test_a_permutation_is_one(seed, epoch, n):
    order = permutation(seed, epoch, n)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, permutation(seed, epoch, n))


def test_permutations_differ_by_seed_and_epoch():
    orders = [permutation(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    assert all((a == b).mean() < 0.02 for i, a in enumerate(orders) for b in orders[:i])


class TestChoose:
    def test_rows_in_the_order_of_their_classes_are_all_met(self):
        rows = np.arange(5_000, 9_000)
        found = choose(rows, 512)
        assert len(found) == len(set(found.tolist())) == 512
        assert set(found.tolist()) <= set(rows.tolist())
        counts = np.bincount((found - 5_000) // 1_000, minlength=4)
        assert counts.min() > 128 - 5 * np.sqrt(512 * 0.25 * 0.75)

    def test_always_the_same_and_no_more_than_there_are(self):
        assert np.array_equal(choose(40, 8), choose(40, 8))
        assert sorted(choose(7, 8)) == list(range(7))
        assert np.array_equal(choose(40, 8), choose(40, 20)[:8])

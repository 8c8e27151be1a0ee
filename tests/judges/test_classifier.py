"""The judge: its area under the curve by brute force, what it learns, and what it cannot."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galdiff.judges import Classifier, auc
from galdiff.schema.conditions import Class

KINDS = Class("kind", ("left", "right"), mirror=(("left", "right"),))


def mann_whitney(scores, labels):
    """Count the pairs that are in order, ties half."""
    pairs = [
        (p, q) for p, a in zip(scores, labels, strict=True) if a for q, b in zip(scores, labels, strict=True) if not b
    ]
    return sum((p > q) + 0.5 * (p == q) for p, q in pairs) / len(pairs)


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_counts_pairs(rows):
    scores, labels = zip(*rows, strict=True)
    if all(labels) or not any(labels):
        assert np.isnan(auc(scores, labels))
        return
    assert auc(scores, labels) == pytest.approx(mann_whitney(scores, labels), abs=1e-12)
    assert auc([-s for s in scores], labels) == pytest.approx(1 - auc(scores, labels), abs=1e-12)
    assert auc(np.exp(scores), labels) == auc(scores, labels)


@pytest.mark.parametrize(("scores", "expected"), [([0, 1, 2, 3], 1.0), ([3, 2, 1, 0], 0.0), ([5, 5, 5, 5], 0.5)])
def test_auc_of_known_rankings(scores, expected):
    assert auc(scores, [0, 0, 1, 1]) == expected


def bars(n, seed, size=16):
    """Draw horizontal (0) and vertical (1) bars in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    images = rng.normal(0, 0.3, (n, 1, size, size)).astype(np.float32)
    images[:, :, size // 2 - 1 : size // 2 + 1] += 1
    images[labels == 1] = images[labels == 1].swapaxes(2, 3)
    return images, labels


def disks(n, seed, size=16):
    """Draw small (0) and large (1) disks in noise: turning them changes nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    grid = np.arange(size) - (size - 1) / 2
    r = np.hypot(grid[:, None], grid)
    images = (r[None] < np.where(labels, 5, 2.5)[:, None, None]) + rng.normal(0, 0.3, (n, size, size))
    return images[:, None].astype(np.float32), labels


def fitted(images, targets, **more):
    size = {k: more.pop(k) for k in ("exclusive",) if k in more}
    judge = Classifier(1, 2, width=8, **size)
    return judge.fit(images, targets, **{"seen": 1600, "batch": 32, **more})


class TestClassifier:
    def test_learns_what_is_separable(self):
        judge, (images, labels) = fitted(*disks(400, 0)), disks(200, 1)
        probabilities = judge.predict(images)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        assert auc(probabilities[:, 1], labels) > 0.98
        assert (probabilities.argmax(1) == labels).mean() > 0.95

    def test_shuffled_labels_teach_nothing(self):
        images, labels = disks(400, 0)
        rng = np.random.default_rng(5)
        judge = fitted(images, rng.permutation(labels))
        assert judge.predict(disks(200, 1)[0]).max() < 0.9
        # A good judge tells nothing of labels that do not go with the images: the null of every AUC in a report.
        judge, (images, labels) = fitted(images, labels), disks(600, 1)
        assert auc(judge.predict(images)[:, 1], rng.permutation(labels)) == pytest.approx(0.5, abs=0.08)

    def test_what_a_turn_undoes_cannot_be_learned(self):
        judge, (images, labels) = fitted(*bars(400, 0)), bars(300, 1)
        assert auc(judge.predict(images)[:, 1], labels) == pytest.approx(0.5, abs=0.15)

    def test_mirror_classes_swap_with_the_image(self):
        # An L and its mirror image differ by handedness alone.
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, 500)
        images = rng.normal(0, 0.2, (500, 1, 16, 16)).astype(np.float32)
        images[:, :, 2:14, 4:7] += 1
        images[:, :, 11:14, 4:13] += 1
        images[labels == 1] = images[labels == 1][..., ::-1]
        judge = fitted(images, labels, field=KINDS, seen=6400)
        scores = judge.predict(images)[:, 1]
        assert auc(scores, labels) > 0.9
        mirrored = judge.predict(images[..., ::-1].copy())[:, 1]
        assert auc(mirrored, labels) < 0.1

    def test_unknown_columns_do_not_count(self):
        images, labels = disks(400, 0)
        targets = np.stack([labels, 1 - labels], axis=1).astype(np.float32)
        targets[::2, 0], targets[1::2, 1] = np.nan, np.nan
        judge, (images, labels) = fitted(images, targets, exclusive=False), disks(200, 1)
        probabilities = judge.predict(images)
        assert auc(probabilities[:, 0], labels) > 0.95
        assert auc(probabilities[:, 1], labels) < 0.05

    def test_the_same_seed_gives_the_same_judge(self):
        images, labels = disks(64, 0)
        judges = []
        for _ in range(2):
            torch.manual_seed(len(judges))
            judges.append(fitted(images, labels, seen=128).predict(images))
        np.testing.assert_array_equal(*judges)

"""The morphology encoder: its symmetries, that it is repeatable, and what it sees."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from galdiff.errors import CheckpointError, DataError
from galdiff.judges import MorphologyEncoder
from galdiff.judges.views import SPOILS, grain, views
from galdiff.metrics import frechet_distance
from galdiff.nn.dihedral import dihedral
from galdiff.schema.conditions import Class, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import GZ2_TREE

SIZE = 24
KINDS = Class("kind", ("smooth", "left", "right"), mirror=(("left", "right"),))
AXIS = np.arange(SIZE) - (SIZE - 1) / 2


def galaxies(n, seed):
    """Draw disks without arms and with two that turn left or right, at any angle, in two bands."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    r, phi = np.hypot(AXIS[:, None], AXIS), np.arctan2(AXIS[:, None], AXIS)
    hand, turn = np.array([0, 1, -1])[kind][:, None, None], rng.uniform(0, 2 * np.pi, (n, 1, 1))
    arms = 1 + 0.9 * np.abs(hand) * np.cos(2 * (phi - turn) + 4 * hand * np.log(r + 1))
    light = np.exp(-r / rng.uniform(3, 4, (n, 1, 1))) * arms
    images = np.stack([light, 0.8 * light], axis=1) + rng.normal(0, 0.03, (n, 2, SIZE, SIZE))
    return images.astype(np.float32), kind


def conditions(kind):
    schema = ConditionSchema([KINDS])
    return schema, schema.ask(len(kind), kind=kind.tolist())


@pytest.fixture(scope="module")
def encoder():
    images, kind = galaxies(600, 0)
    schema, known = conditions(kind)
    return MorphologyEncoder(2, schema, width=8, features=32).fit(images, known, seed=1, seen=4800)


def test_turning_changes_nothing_and_reflecting_the_odd_features_alone(encoder):
    images = torch.from_numpy(galaxies(5, 3)[0])
    upright = encoder.features(images)
    odd = slice(24, None)
    for element in range(8):
        turned = encoder.features(dihedral(images, torch.full((5,), element)))
        np.testing.assert_allclose(turned[:, :24], upright[:, :24], atol=1e-4)
        np.testing.assert_allclose(turned[:, odd], upright[:, odd] * (-1 if element >= 4 else 1), atol=1e-4)


def test_features_are_standardised_by_the_training_images(encoder):
    f = encoder.features(galaxies(600, 0)[0])
    assert f.dtype == np.float64
    assert f.shape == (600, 32)
    np.testing.assert_allclose(np.square(f).mean(0), 1, atol=1e-3)
    np.testing.assert_allclose(f[:, :24].mean(0), 0, atol=1e-3)


@pytest.fixture(scope="module")
def reference(encoder):
    real = encoder.features(galaxies(400, 10)[0])
    return real, frechet_distance(encoder.features(galaxies(400, 11)[0]), real)


@pytest.mark.parametrize("defect", ["blur", "noise", "color", "armless", "one hand"])
def test_defects_stand_out(encoder, reference, defect):
    """Held-out images with a defect against other real ones, beside real against real."""
    real, floor = reference
    images, kind = galaxies(400, 11)
    if defect == "blur":
        images = gaussian_filter(images, (0, 0, 1, 1))
    elif defect == "noise":
        images = images + np.random.default_rng(0).normal(0, 0.03, images.shape).astype(np.float32)
    elif defect == "color":
        images = images * np.array([1.1, 0.9], dtype=np.float32)[:, None, None]
    elif defect == "armless":
        images = np.concatenate([images[kind == 0]] * 4)[:400]
    else:
        images[kind == 2] = images[kind == 2][..., ::-1]
    assert frechet_distance(encoder.features(images), real) > 2 * floor, (
        frechet_distance(encoder.features(images), real),
        floor,
    )


def test_the_same_seed_gives_the_same_bits_and_what_is_saved_is_the_same(tmp_path):
    images, kind = galaxies(64, 5)
    schema, known = conditions(kind)
    kept = []
    for _ in range(2):
        torch.manual_seed(len(kept))
        kept.append(MorphologyEncoder(2, schema, width=8, features=8).fit(images, known, seed=3, seen=192, batch=32))
    first, second = (judge.features(images) for judge in kept)
    np.testing.assert_array_equal(first, second)
    kept[0].save(tmp_path / "judge")
    assert sorted(p.name for p in (tmp_path / "judge").iterdir()) == ["encoder.safetensors", "spec.json"]
    np.testing.assert_array_equal(MorphologyEncoder.load(tmp_path / "judge").features(images), first)
    other = MorphologyEncoder(2, schema, width=8, features=8).fit(images, known, seed=4, seen=192, batch=32)
    assert np.abs(other.features(images) - first).max() > 0.1


def test_it_learns_without_labels_and_from_every_kind_of_condition():
    images, _ = galaxies(40, 6)
    assert MorphologyEncoder(2, width=8, features=8).fit(images, seen=64, batch=32).features(images).shape == (40, 8)
    schema = ConditionSchema(
        [KINDS, Scalar("z", mean=0.1, std=0.02), Scalar("pa", "deg", angle=True), Votes("v", GZ2_TREE)]
    )
    asked = schema.ask(40, kind="left", z=0.12, pa=30.0, v={"spiral": 0.9})
    known = asked[:20].cat(schema.empty(20))
    encoder = MorphologyEncoder(2, schema, width=8, features=8).fit(images, known, seen=64, batch=32)
    assert len(encoder.heads) == 3
    nothing = MorphologyEncoder(2, schema, width=8, features=8).fit(images, schema.empty(40), seen=64, batch=32)
    assert np.isfinite(nothing.features(images)).all()


def test_what_cannot_be_learned_or_loaded_is_an_error(tmp_path):
    images, kind = galaxies(4, 7)
    schema, known = conditions(kind)
    with pytest.raises(DataError, match="multiple of four"):
        MorphologyEncoder(2, features=30)
    with pytest.raises(DataError, match="do not go with"):
        MorphologyEncoder(2, schema, width=8, features=8).fit(images, known[:3])
    with pytest.raises(DataError, match="two or more"):
        MorphologyEncoder(2, width=8, features=8).fit(images[:1])
    encoder = MorphologyEncoder(2, schema, width=8, features=8)
    encoder.save(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot load"):
        MorphologyEncoder.load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot load"):
        MorphologyEncoder.load(tmp_path / "nowhere")


class TestViews:
    def test_second_views_are_spoiled_by_what_is_said(self):
        images = torch.from_numpy(galaxies(1, 8)[0]).repeat(300, 1, 1, 1)
        pairs, elements, amounts = views(images, seed=0, positions=torch.arange(300), noise=0.03)
        first, second = pairs.chunk(2)
        assert pairs.shape == (600, 2, SIZE, SIZE)
        assert elements.unique().tolist() == list(range(8))
        assert ((amounts != 0).sum(1) <= 1).all()
        assert 0.25 < (amounts == 0).all(1).float().mean() < 0.42
        shift = [(a, b) for a in range(-4, 5) for b in range(-4, 5)]
        back = min((second.roll(s, dims=(2, 3)) for s in shift), key=lambda x: (x - first).abs().median())
        for k, name in enumerate(SPOILS):
            rows = (amounts[:, k].abs() > 0.3).nonzero().flatten()
            difference, said = (back - first)[rows], amounts[rows, k]
            if name == "noise":
                np.testing.assert_allclose(difference.std((1, 2, 3)), 2 * 0.03 * said, rtol=0.15)
            elif name == "blur":
                assert (back[rows].amax((1, 2, 3)) < first[rows].amax((1, 2, 3))).all()
                np.testing.assert_allclose(back[rows].mean((1, 2, 3)), first[rows].mean((1, 2, 3)), atol=0.01)
            else:
                red = difference[:, 0].mean((1, 2)).sign()
                blue = difference[:, 1].mean((1, 2)).sign()
                assert (red == said.sign()).all()
                assert (blue == (-1 if name == "color" else 1) * said.sign()).all()
        same = (back - first)[(amounts == 0).all(1)]
        assert same.abs().max() == 0

    def test_a_pair_belongs_to_its_position(self):
        images = torch.from_numpy(galaxies(6, 9)[0])
        whole = views(images, seed=0, positions=torch.arange(6), noise=0.03)
        again = views(images, seed=0, positions=torch.arange(6), noise=0.03)
        assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
        assert not torch.equal(views(images, seed=1, positions=torch.arange(6), noise=0.03)[0], whole[0])

    def test_grain_is_the_noise_of_the_sky(self):
        assert grain(torch.from_numpy(galaxies(20, 1)[0])) == pytest.approx(0.03, rel=0.35)
        assert grain(torch.zeros(1, 1, 8, 8)) == 0.01

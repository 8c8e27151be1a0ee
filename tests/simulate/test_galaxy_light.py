"""The light of simulated galaxies against the laws of their profiles, measured on noiseless renders."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from galdiff.simulate.camera import blur, lupton, sky_noise
from galdiff.simulate.light import OVERSAMPLING, stamp_coordinates, surface_brightness
from galdiff.simulate.population import Galaxy, draw_population

SIZE = 64


def galaxy(**changes):
    """Return a plain face-on disk without a bulge, with changes."""
    plain = Galaxy(**draw_population(np.arange(1), seed=0).to_dict("records")[0])
    plain = replace(
        plain, kind="disk", edge_on=False, has_spiral=False, has_bar=False, flux=100.0, r_half=7.0, axis_ratio=1.0,
        inclination=0.0, position_angle=0.0, x=0.0, y=0.0, sersic_index=1.0, bulge_fraction=0.0, bulge_radius=1.0,
        bulge_axis_ratio=1.0, n_arms=0, arm_contrast=0.0, bar_fraction=0.0, bar_length=0.0, n_neighbors=0,
    )  # fmt: skip
    return replace(plain, **changes)


SPIRAL = {
    "has_spiral": True, "n_arms": 2, "pitch": 20.0, "handedness": 1, "arm_contrast": 0.9, "arm_phase": 0.0,
    "arm_start": 3.0, "knot_phase": 0.0,
}  # fmt: skip
BAR = {"has_bar": True, "bar_fraction": 0.3, "bar_length": 8.0, "bar_axis_ratio": 0.3, "bar_angle": 30.0}
ELLIPTICAL = {"kind": "elliptical", "bulge_fraction": 1.0}


def gray(g, size=SIZE):
    return surface_brightness(g, size).mean(0).astype(np.float64)


def moments(image):
    """Return center (x, y), the moments' axis ratio and the position angle [deg]."""
    x, y = np.broadcast_arrays(*(c.astype(np.float64) for c in stamp_coordinates(SIZE)))
    w = image / image.sum()
    cx, cy = (w * x).sum(), (w * y).sum()
    cov = np.array([[(w * (a - ca) * (b - cb)).sum() for b, cb in ((x, cx), (y, cy))] for a, ca in ((x, cx), (y, cy))])
    values, vectors = np.linalg.eigh(cov)
    return (cx, cy), np.sqrt(values[0] / values[1]), np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"axis_ratio": 0.5},
        {"kind": "edge_on", "axis_ratio": 0.18, "r_half": 6.0},
        {"bulge_fraction": 0.3, "bulge_radius": 2.0},
        SPIRAL,
        BAR,
        SPIRAL | BAR | {"bulge_fraction": 0.2, "axis_ratio": 0.7},
        ELLIPTICAL | {"sersic_index": 2.0, "r_half": 4.0, "axis_ratio": 0.7, "bulge_axis_ratio": 0.7},
    ],
)
def test_flux_is_the_flux_asked_for(changes):
    fine = gray(galaxy(**changes))
    assert fine.sum() / OVERSAMPLING**2 == pytest.approx(100.0, rel=0.03)


def test_de_vaucouleurs_profile_holds_half_its_light_in_its_half_light_radius():
    g = galaxy(**ELLIPTICAL, sersic_index=4.0, r_half=5.0)
    fine = gray(g)
    x, y = stamp_coordinates(SIZE)
    assert fine[np.hypot(x, y) < 5.0].sum() / OVERSAMPLING**2 == pytest.approx(
        50.0, rel=0.04
    )  # the softened, sampled cusp


def test_disk_growth_curve_is_that_of_an_exponential():
    fine, (x, y) = gray(galaxy()), stamp_coordinates(SIZE)
    h = 7.0 / 1.6783
    for radius in (4.0, 7.0, 12.0):
        expected = 100 * special.gammainc(2, radius / h)
        assert fine[np.hypot(x, y) < radius].sum() / OVERSAMPLING**2 == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"axis_ratio": 0.6, "r_half": 5.0}, 0.01),
        ({"kind": "edge_on", "axis_ratio": 0.2, "r_half": 5.0}, 0.01),
        (ELLIPTICAL | {"sersic_index": 2.0, "axis_ratio": 0.5, "bulge_axis_ratio": 0.5, "r_half": 4.0}, 0.02),
    ],
)
def test_moments_recover_center_axis_ratio_and_position_angle(changes, tolerance):
    center, axis_ratio, angle = moments(gray(galaxy(**changes, x=0.6, y=-0.4, position_angle=35.0)))
    assert center == pytest.approx((0.6, -0.4), abs=0.03)
    assert axis_ratio == pytest.approx(changes["axis_ratio"], abs=tolerance)
    assert angle == pytest.approx(35.0, abs=0.5)


def test_bar_points_along_its_angle_and_ends_at_its_length():
    bar = gray(galaxy(**BAR)) - 0.7 * gray(galaxy())
    _, axis_ratio, angle = moments(bar)
    assert angle == pytest.approx(30.0, abs=0.5)
    assert axis_ratio == pytest.approx(0.3, abs=0.02)
    x, y = stamp_coordinates(SIZE)
    assert np.abs(bar[np.hypot(x, y) > 8.3]).max() < 1e-4 * bar.max()


@pytest.mark.parametrize("n_arms", [2, 3, 4])
@pytest.mark.parametrize("handedness", [1, -1])
def test_arms_wind_with_their_pitch_and_handedness(n_arms, handedness):
    fine = gray(galaxy(**(SPIRAL | {"n_arms": n_arms, "handedness": handedness, "pitch": 25.0})))
    x, y = stamp_coordinates(SIZE)
    r, theta = np.hypot(x, y), np.arctan2(y, x)
    radii = np.arange(6.0, 16.0, 0.5)
    modes = {
        m: np.array([(fine * np.exp(-1j * m * theta))[np.abs(r - radius) < 0.6].sum() for radius in radii])
        for m in range(1, 7)
    }
    power = {m: np.abs(c).sum() for m, c in modes.items()}
    assert max(power, key=power.get) == n_arms
    phase = -np.unwrap(np.angle(modes[n_arms])) / n_arms
    slope = np.polyfit(np.log(radii), phase, 1)[0]
    assert np.degrees(np.arctan(1 / slope)) == pytest.approx(handedness * 25.0, abs=2.5)


def test_arms_are_bluer_than_the_disk_and_add_no_light():
    spiral, plain = surface_brightness(galaxy(**SPIRAL), SIZE), surface_brightness(galaxy(), SIZE)
    assert spiral.sum() == pytest.approx(plain.sum(), rel=0.02)
    assert spiral[2].sum() / spiral[0].sum() > 1.1 * plain[2].sum() / plain[0].sum()


def test_psf_and_binning_keep_flux_and_center_and_have_the_width_asked_for():
    scene = np.zeros((3, 2 * SIZE, 2 * SIZE), dtype=np.float32)
    scene[:, SIZE - 1 : SIZE + 1, SIZE - 1 : SIZE + 1] = 1.0
    image = blur(scene, 5.0)[0].astype(np.float64)
    assert image.sum() == pytest.approx(1.0, rel=1e-4)
    x = np.arange(SIZE) - (SIZE - 1) / 2
    assert (image * x).sum() == pytest.approx(0.0, abs=1e-3)
    profile = image[SIZE // 2, SIZE // 2 :]
    assert np.interp(-profile[0] / 2, -profile, x[SIZE // 2 :]) == pytest.approx(2.5, abs=0.25)


def test_sky_noise_has_unit_variance_its_autocorrelation_and_correlated_bands():
    white = np.random.default_rng(0).standard_normal((4, 256, 256)).astype(np.float32)
    noise = sky_noise(white, 0.7)
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    for lag in (1, 2):
        measured = (noise[:, lag:] * noise[:, :-lag]).mean()
        assert measured == pytest.approx(np.exp(-(lag**2) / (4 * 0.7**2)), abs=0.02)
    bands = np.corrcoef(noise.reshape(3, -1))
    assert bands[0, 1] == pytest.approx(0.6, abs=0.02)


def test_rendering_keeps_colors_and_the_unit_interval_and_is_linear_when_faint():
    light = np.array([2.0, 1.0, 0.5])[:, None, None] * np.geomspace(1e-4, 1e4, 50)[None, :, None]
    rgb = lupton(light.astype(np.float32))
    assert rgb.min() >= 0
    assert rgb.max() <= 1 + 1e-6
    assert rgb[0] / rgb[2] == pytest.approx(4.0, rel=1e-4)
    assert rgb[:, 0] == pytest.approx(light[:, 0], rel=1e-3)
    assert lupton(np.full((3, 1, 1), -1.0, dtype=np.float32)).max() == 0

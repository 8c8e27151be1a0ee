"""Feature spaces: each protocol's own resizing, the network of 2015 by name, and one rendering for all images."""

import hashlib
import importlib
import importlib.util
import sys
import types
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from galdiff.errors import CheckpointError, DataError, ResourceError
from galdiff.metrics import Rendering, feature_space, frechet_distance, physical_features
from galdiff.metrics.features import DINOv2Features, InceptionFeatures, PhysicalFeatures, networks
from galdiff.metrics.features.inception import Inception, load_inception
from galdiff.metrics.features.resizing import RESIZERS, resize_antialiased, resize_clean, resize_tf


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write random weights, under the names of the published file."""
    torch.manual_seed(0)
    network = Inception()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def fidelity():
    """Return a function that imports modules of torch-fidelity, whose own package needs torchvision."""
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torch-fidelity is not installed")
    saved = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torch_fidelity"}
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["torch_fidelity"] = package
    yield lambda name: importlib.import_module(f"torch_fidelity.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]:
        del sys.modules[name]
    sys.modules.update(saved)


def bytes_of(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def tensor(rgb):
    return torch.from_numpy(rgb.transpose(0, 3, 1, 2).astype(np.float32))


class TestResizing:
    @pytest.mark.parametrize(("size", "side"), [(7, 12), (16, 5), (9, 9), (3, 299)])
    def test_tf_is_tensorflows_formula_pixel_by_pixel(self, size, side):
        """Output pixel i lies at i * input / output; TensorFlow 1, align_corners=False."""
        image = np.random.default_rng(size).uniform(0, 255, (size, size))
        scale, expected = size / side, np.empty((side, side))
        for i in range(side):
            for j in range(side):
                y, x = i * scale, j * scale
                top, left = int(y), int(x)
                below, right = min(top + 1, size - 1), min(left + 1, size - 1)
                dy, dx = y - top, x - left
                upper = image[top, left] * (1 - dx) + image[top, right] * dx
                lower = image[below, left] * (1 - dx) + image[below, right] * dx
                expected[i, j] = upper * (1 - dy) + lower * dy
        found = resize_tf(torch.from_numpy(image)[None, None], side)[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-9)

    @pytest.mark.parametrize("size", [64, 424])
    def test_tf_is_torch_fidelitys(self, size, fidelity):
        theirs = fidelity("interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
        x = tensor(bytes_of(1, size))
        assert torch.equal(resize_tf(x, 299), theirs(x, size=(299, 299), align_corners=False))

    @pytest.mark.parametrize("size", [20, 97])
    def test_antialiased_is_pillows_triangle(self, size):
        x = tensor(bytes_of(1, size))
        planes = [Image.fromarray(p).resize((41, 41), Image.Resampling.BILINEAR) for p in x[0].numpy()]
        np.testing.assert_allclose(resize_antialiased(x, 41)[0], np.stack(planes), atol=1e-3)

    @pytest.mark.parametrize("size", [20, 97])
    def test_clean_is_torchs_bicubic_clipped(self, size):
        blocks = tensor(bytes_of(2, size) // 128 * 255)  # whose edges overshoot
        x = blocks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[..., :size, :size]
        bicubic = functional.interpolate(x, (41, 41), mode="bicubic", antialias=True, align_corners=False)
        found = resize_clean(x, 41)
        np.testing.assert_allclose(found, bicubic.clamp(0, 255), atol=1e-3)
        assert (found == 0).any()
        assert (found == 255).any()
        assert (found != found.round()).any()

    def test_the_protocols_differ(self):
        x = tensor(bytes_of(1, 97))
        resized = {name: resize(x, 41) for name, resize in RESIZERS.items()}
        for name, other in (("tf", "torchmetrics-aa"), ("torchmetrics-aa", "clean"), ("clean", "tf")):
            assert (resized[name] - resized[other]).abs().mean() > 1


class TestInception:
    def test_its_layout_has_the_published_number_of_weights(self):
        """23,834,568 in the 1000-class network without its auxiliary head, of which 2,049,000 are the last layer's."""
        network = Inception()
        classes = sum(p.numel() for p in network.fc.parameters())
        assert sum(p.numel() for p in network.parameters()) - classes == 23_834_568 - 2_049_000
        assert classes == 2049 * 1008

    def test_its_names_and_shapes_are_those_of_the_published_files(self):
        """Digest of the state of torch-fidelity's 0.4.0 and pytorch-fid's 0.3.0 networks, which have the same."""
        state = Inception().state_dict()
        lines = [f"{name} {tuple(value.shape)}" for name, value in sorted(state.items())]
        assert len(lines) == 566
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        assert digest == "760681d791cb624e1bf7a2e802a68933dd17aa5e3109fcf498d9dfa521bc10d7"

    @pytest.mark.parametrize("kind", ["as today", "as in 2018", "without counters", "safetensors"])
    def test_weights_are_read_from_files_of_any_age(self, kind, weights, tmp_path):
        """PyTorch's older format, and batch norms that do not count their batches, as converted weights have them."""
        state = torch.load(weights, weights_only=True)
        path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
        if kind in ("without counters", "safetensors"):
            state = {name: value for name, value in state.items() if "num_batches" not in name}
        if kind == "safetensors":
            save_file(state, path)
        else:
            torch.save(state, path, _use_new_zipfile_serialization=kind != "as in 2018")
        network, digest = load_inception(path)
        found = network.state_dict()
        assert all(torch.equal(found[name], value) for name, value in state.items())
        assert not network.training
        assert len(digest) == 8

    def test_features_are_torch_fidelitys_from_the_same_file(self, weights, fidelity):
        theirs = fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3("x", ["2048"], str(weights))
        rgb = bytes_of(2, 48)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(rgb.transpose(0, 3, 1, 2).copy()))[0]
        found = InceptionFeatures("tf", weights).describe(rgb)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert found.std() > 0.01

    def test_safetensors_are_read_too(self, weights, tmp_path):
        state = torch.load(weights, weights_only=True)
        save_file(state, tmp_path / "w.safetensors")
        rgb = bytes_of(1, 32)
        found = [InceptionFeatures("clean", path).describe(rgb) for path in (weights, tmp_path / "w.safetensors")]
        assert torch.equal(*found)

    @pytest.mark.parametrize("content", ["other", "pickle", "nothing", "absent"])
    def test_other_files_are_refused(self, content, tmp_path):
        path = tmp_path / "w.pth"
        if content == "other":
            torch.save({"fc.weight": torch.zeros(3, 3)}, path)
        elif content == "pickle":
            torch.save(Hostile(tmp_path / "ran"), path)
        elif content == "nothing":
            path.write_bytes(b"")
        with pytest.raises(CheckpointError, match="2015 Inception"):
            InceptionFeatures("tf", path)
        assert not (tmp_path / "ran").exists()

    def test_without_a_network_the_remedy_is_a_file(self, monkeypatch):
        def refuse(*args, **kwargs):
            assert kwargs["check_hash"]
            assert kwargs["weights_only"]
            raise URLError("no network")

        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
        with pytest.raises(ResourceError, match="inception-2015:tf=FILE"):
            InceptionFeatures("tf")

    def test_the_distance_is_torch_fidelitys_formula(self, weights):
        """|mu1 - mu2|^2 + tr + tr - 2 sum sqrt eigenvalues(S1 S2), as their metric_fid has it."""
        space = InceptionFeatures("tf", weights)
        sets = [galaxies(6, seed) for seed in (0, 1)]
        space.fit(sets[0], "display")
        a, b = (space(images) for images in sets)
        assert a.shape == (6, 2048)
        keep = a.std(axis=0).argsort()[-200:]
        a, b = a[:, keep], b[:, keep]
        cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).astype(complex)).real.sum()
        expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def galaxies(n, seed, bands=3, size=32):
    rng = np.random.default_rng(seed)
    r = np.hypot(*np.mgrid[:size, :size] - (size - 1) / 2)
    light = rng.uniform(0.3, 0.9, (n, bands, 1, 1)) * np.exp(-r / rng.uniform(2, 5, (n, 1, 1, 1)))
    return (light + rng.normal(0.05, 0.01, (n, bands, size, size))).clip(0, 1).astype(np.float32)


class TestRendering:
    def test_bytes_are_rounded_half_to_even_and_clipped(self):
        values = np.array([-1, 0.5, 1.5, 2.5, 254.5, 300]) / 255
        x = np.broadcast_to(values[None, None, None], (1, 3, 1, 6)).astype(np.float64)
        assert Rendering.fit(x, "display")(x)[0, 0, :, 0].tolist() == [0, 0, 2, 2, 254, 255]

    def test_one_band_is_repeated(self):
        x = galaxies(2, 0, bands=1)
        rgb = Rendering.fit(x, "display")(x)
        assert (rgb == rgb[..., :1]).all()

    def test_the_scaling_is_that_of_the_images_it_was_fitted_on(self):
        """Images of half the brightness stay darker: nothing is scaled by its own range."""
        x = galaxies(8, 0, bands=5)
        rendering = Rendering.fit(x, "nanomaggy")
        assert rendering(x * 0.5).mean() < 0.8 * rendering(x).mean()
        assert np.array_equal(rendering(x)[:3], rendering(x[:3]))
        assert rendering.to_dict()["mix"][0] == (0, 0, 0, 0, 1)
        assert all(f"{level:.6g}" in str(rendering) for level in (*rendering.sky, *rendering.high))

    def test_the_protocol_tells_renderings_apart(self, weights):
        space = InceptionFeatures("tf", weights)
        protocols = set()
        for images, unit in ((galaxies(4, 0), "display"), (galaxies(4, 0), "e/s"), (galaxies(4, 1, 5), "e/s")):
            space.fit(images, unit)
            protocols.add(space.protocol)
        assert len(protocols) == 3
        assert all(p.startswith("inception-2015/tf, weights ") for p in protocols)
        assert space.record()["rendering"]["q"] == 10


class Stub(nn.Module):
    """Stands for a transformer: the class token is the mean of what it is given."""

    config = types.SimpleNamespace(hidden_size=3)

    def forward(self, pixel_values):
        self.seen = pixel_values
        means = pixel_values.mean(dim=(2, 3))
        return types.SimpleNamespace(last_hidden_state=torch.stack([means, means + 100], dim=1))


class TestDINOv2:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
        return tmp_path

    def test_images_are_resized_and_standardized(self, folder, monkeypatch):
        stub = Stub()
        monkeypatch.setattr(networks, "_transformer", lambda path: stub)
        space = feature_space(f"dinov2={folder}")
        assert isinstance(space, DINOv2Features)
        gray = np.full((2, 64, 64, 3), 255, np.uint8)
        features = space.describe(gray)
        assert stub.seen.shape == (2, 3, 224, 224)
        expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        np.testing.assert_allclose(features, np.tile(expected, (2, 1)), rtol=1e-5)

    def test_a_folder_without_a_model_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"config\.json"):
            feature_space(f"dinov2={tmp_path}")

    def test_a_model_of_transformers(self, tmp_path):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 224}
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, patch_size=14)).eval()
        model.save_pretrained(tmp_path, safe_serialization=True)
        space = DINOv2Features(tmp_path)
        space.fit(galaxies(3, 0), "display")
        features = space(galaxies(3, 0))
        assert features.shape == (3, 16)
        images = [
            Image.fromarray(i).resize((224, 224), Image.Resampling.BICUBIC) for i in space.rendering(galaxies(3, 0))
        ]
        x = (np.stack(images) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        x = torch.from_numpy(x.transpose(0, 3, 1, 2))
        with torch.no_grad():
            expected = model(pixel_values=x.float()).last_hidden_state[:, 0]
        np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


class TestNames:
    def test_physical_features_are_whitened_by_what_they_are_fitted_on(self):
        space = feature_space("physical-10")
        images = galaxies(60, 0)
        space.fit(images, "display", source="these")
        np.testing.assert_allclose(space(images).mean(axis=0), 0, atol=0.2)
        np.testing.assert_array_equal(space.measure(images), physical_features(images))
        assert space.protocol == "physical-10, whitened by these, clipped at 5 sigma"
        assert isinstance(space, PhysicalFeatures)

    @pytest.mark.parametrize("name", ["inception", "physical-10:tf", "dinov2", "inception-2015:nearest=x", "", "a b"])
    def test_unknown_names_are_refused(self, name):
        with pytest.raises(DataError, match=r"Known: .*tf"):
            feature_space(name)

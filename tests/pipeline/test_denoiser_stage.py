"""The denoiser's training with its switches, on a latent store of normal numbers, and what is loaded from it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from galdiff import LatentDiffusion
from galdiff.autoencoder import KLAutoencoder
from galdiff.config.spec import DenoiserSpec
from galdiff.data.stretch import Sqrt
from galdiff.diffusion import Objective
from galdiff.errors import CheckpointError, GaldiffError
from galdiff.imageformat import ImageFormat
from galdiff.latents import LatentStore
from galdiff.model import DiffusionModel, build_denoiser
from galdiff.pipeline.denoiser import DenoiserTask, denoiser_size, train_denoiser
from galdiff.progress import quiet
from galdiff.schema.conditions import Class, ConditionSchema, Votes
from galdiff.schema.trees import GZ2_TREE
from galdiff.training import posthoc, read_metrics

SCHEMA = ConditionSchema([Class("morphology", ("a", "b"))])
ROWS, SHAPE = 48, (4, 4, 4)
FORMAT = ImageFormat(("r", "g", "b"), 32, "display", Sqrt(1.0))
TINY = {"kind": "dit", "width": 32, "depth": 4, "heads": 2, "patch": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    random = np.random.default_rng(0)
    store = LatentStore.create(
        tmp_path_factory.mktemp("latents") / "latents.zarr",
        shape=SHAPE,
        ids=np.arange(ROWS) + 1000,
        split=np.full(ROWS, "train"),
        conditions=SCHEMA.ask(ROWS, {"morphology": ["a", "b"] * (ROWS // 2)}),
        schema=SCHEMA,
    )
    for k in store.missing_shards():
        shape = (len(range(ROWS)[store.shard_rows(k)]), *SHAPE)
        store.write_shard(k, mean=random.normal(size=shape), log_var=np.full(shape, -6.0))
    store.finish()
    return LatentStore.open(store.path)


def trained(store, folder, *, batch=8, images=44, **section):
    torch.manual_seed(0)
    autoencoder = KLAutoencoder(3, channels=4, width=16, blocks=1).eval()
    section = {"backbone": TINY, "batch": batch, "images": images, "warmup_images": 8, **section}
    with quiet():
        model = train_denoiser(
            store,
            autoencoder,
            folder / "denoiser",
            image_format=FORMAT,
            settings=DenoiserSpec(**section).settings(),
            sampling={"sampler": "euler", "steps": 2, "guidance": 1.5},
            seed=0,
            device=torch.device("cpu"),
            metrics=folder / "metrics.jsonl",
        )
    model.save(folder)
    return model


@pytest.mark.parametrize(
    "section",
    [
        {"backbone": {**TINY, "skips": True}},
        {"backbone": {"kind": "unet", "widths": [16], "head_width": 16}},
        {"backbone": {"kind": "edm2", "widths": [16], "head_width": 16}},
    ],
    ids=["skips", "unet", "edm2"],
)
def test_what_is_trained_with_a_switch_loads_and_samples(store, tmp_path, section):
    model = trained(store, tmp_path, **section)
    again = LatentDiffusion.load(tmp_path, device="cpu")
    images = again.sample(2, morphology="a")
    expected = torch.cat(
        list(model.generate(model.sampler(), torch.arange(2), SCHEMA.ask(2, {"morphology": "a"})))
    ).numpy()
    np.testing.assert_array_equal(images.values, expected)
    assert np.isfinite(images.values).all()
    assert denoiser_size(again.model).parameters == sum(p.numel() for p in model.denoiser.backbone.parameters())


def test_the_average_of_another_length_is_loaded(store, tmp_path):
    trained(store, tmp_path, ema={"lengths": [0.05, 0.1], "snapshots": 5, "precision": "float32"})
    plain, other = (DiffusionModel.load(tmp_path, ema=ema).denoiser.state_dict() for ema in (None, 0.08))
    for name, value in posthoc(tmp_path / "denoiser" / "snapshots", 0.08).items():
        assert torch.equal(other[name], value)
    assert any(not torch.equal(plain[name], other[name]) for name in plain)
    first = DiffusionModel.load(tmp_path, ema=0.05).denoiser.state_dict()
    for name, value in plain.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def test_a_run_without_snapshots_says_so(store, tmp_path):
    trained(store, tmp_path)
    with pytest.raises(CheckpointError, match="no snapshots"):
        LatentDiffusion.load(tmp_path, device="cpu", ema=0.1)


def test_skipped_batches_are_named_by_the_ids_of_the_store(store, tmp_path, monkeypatch):
    from galdiff.diffusion import Objective, objective

    call, steps = Objective.__call__, []

    def poisoned(self, denoiser, x, draws, **more):
        steps.append(draws.positions)
        loss = call(self, denoiser, x, draws, **more)
        return objective.Loss(loss.per_sample * (torch.nan if len(steps) == 3 else 1.0), loss.t)

    monkeypatch.setattr(Objective, "__call__", poisoned)
    trained(store, tmp_path)
    (named,) = [line["skipped_rows"] for line in read_metrics(tmp_path / "metrics.jsonl") if "skipped_rows" in line]
    assert [part["positions"] for part in named] == [[16, 24]]
    assert named[0]["ids"] == [1000 + row for row in named[0]["rows"]]


def test_a_compiled_training_never_compiles_again(store, tmp_path, monkeypatch):
    """Whole batches, a last one that is smaller, and pictures: the tracer alone stands in for the compiler here."""
    import torch._dynamo

    compiled = []

    def backend(graph, inputs):
        compiled.append(len(inputs))
        return graph.forward

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **more: compile_(self, backend=backend, **more))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        model = trained(store, tmp_path / "compiled", compile=True, plot_every=16)
    assert len(compiled) == 1
    torch._dynamo.reset()
    plain = trained(store, tmp_path / "plain", compile=False, plot_every=16)
    for name, value in plain.denoiser.state_dict().items():
        torch.testing.assert_close(model.denoiser.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_lower_precision_is_an_approximation_that_is_asked_for(store, tmp_path):
    trained(store, tmp_path)
    model = LatentDiffusion.load(tmp_path, device="cpu")
    exact, rough = (model.sample(4, noise=False, precision=p).values for p in ("float32", "bfloat16"))
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, atol=0.05)
    with pytest.raises(GaldiffError, match="float16"):
        model.sample(1, precision="float16")


def test_sampled_votes_are_drawn_anew_for_every_image():
    schema = ConditionSchema([Votes("votes", GZ2_TREE)])
    conditions = schema.ask(8, votes={"spiral": 0.5})

    class Table:
        views = 1

        def __len__(self):
            return 8

        def take(self, rows, element=None):
            zero = torch.zeros(len(rows), *SHAPE)
            return SimpleNamespace(mean=zero, log_var=zero, conditions=conditions[rows])

    autoencoder = KLAutoencoder(3, channels=4, width=16, blocks=1)
    denoiser = build_denoiser({**TINY, "channels": 4}, schema, {"kind": "rectified_flow"}, "flow")
    model = DiffusionModel(autoencoder, denoiser, schema, FORMAT, torch.zeros(4), torch.ones(4), {})
    seen = []
    denoiser.backbone.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[2].values["votes"]))
    for sampled in (False, True):
        settings = DenoiserSpec(sampled_votes=sampled).settings()
        task = DenoiserTask(
            model, Table(), Objective(), seed=0, augment=False, sampled_votes=settings.get("sampled_votes", False)
        )
        for start in (0, 8):
            task.loss(torch.arange(8), range(start, start + 8))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], conditions.values["votes"])
    answers = GZ2_TREE.answer_slice(GZ2_TREE.find("spiral")[0])
    assert len(torch.cat(seen[2:])[:, answers].unique(dim=0)) == 16

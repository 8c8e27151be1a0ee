"""The engine against a plain loop, closed forms, and the promises it makes."""

import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from galdiff.errors import GaldiffError
from galdiff.progress import quiet
from galdiff.randomness import normal, permutation
from galdiff.training import Interrupted, load_latest, read_metrics, train


class Toy:
    """A regression with noise that is a function of the position; remembers what it was shown."""

    def __init__(self, rows=40, hook=lambda step, loss: loss):
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 2, 3, padding=1))
        self.model[0].to(memory_format=torch.channels_last)
        self.data = torch.randn(rows, 2, 5, 5, generator=torch.Generator().manual_seed(1))
        self.rows, self.hook, self.step = rows, hook, 0
        self.seen, self.weights = [], []

    def loss(self, rows, positions):
        self.seen.append((rows, torch.as_tensor(positions)))
        self.weights.append(flat(self.model.parameters()))
        clean = self.data[rows]
        noise = normal(7, "toy", torch.as_tensor(positions), clean.shape[1:])
        loss = (self.model(clean + noise) - noise).square().mean()
        self.step += 1
        return self.hook(self.step - 1, loss), {"twice": 2 * loss.detach()}


def flat(parameters):
    return torch.cat([p.detach().flatten() for p in parameters]).clone()


def run(task, folder, **more):
    arguments = {"images": 80, "batch": 8, "seed": 5, "learning_rate": 1e-2, "save_every": 24}
    with quiet():
        return train(task, folder, **{**arguments, **more})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestAgainstAPlainLoop:
    def test_weights_and_average(self, tmp_path):
        task, plain = Toy(), Toy()
        result = run(task, tmp_path, weight_decay=0.02, clip=0.5, ema=0.9, warmup_images=16)
        optimizer = torch.optim.AdamW(plain.model.parameters(), 1.0, betas=(0.9, 0.95), weight_decay=0.02, fused=False)
        average = [p.detach().double().clone() for p in plain.model.parameters()]
        for step in range(10):
            positions = range(8 * step, 8 * step + 8)
            rows = torch.from_numpy(permutation(5, positions[0] // 40, 40))[torch.as_tensor(positions) % 40]
            warm = min(1.0, (8 * step + 1) / 16)
            optimizer.param_groups[0]["lr"] = 1e-2 * warm * 0.5 * (1 + math.cos(math.pi * step / 10))
            optimizer.zero_grad()
            plain.loss(rows, positions)[0].backward()
            nn.utils.clip_grad_norm_(plain.model.parameters(), 0.5)
            optimizer.step()
            decay = min(0.9, (1 + step) / (10 + step))
            average = [
                decay * a + (1 - decay) * p.detach() for a, p in zip(average, plain.model.parameters(), strict=True)
            ]
        torch.testing.assert_close(flat(task.model.parameters()), flat(plain.model.parameters()), rtol=0, atol=1e-6)
        averaged = torch.cat([v.flatten() for v in result.ema_state.values()]).double()
        torch.testing.assert_close(averaged, torch.cat([a.flatten() for a in average]), rtol=0, atol=1e-6)
        assert (result.images, result.skipped_steps) == (80, 0)

    def test_average_is_its_closed_form(self, tmp_path):
        task = Toy()
        result = run(task, tmp_path, ema=0.5, images=96)
        weights = [*task.weights, flat(task.model.parameters())]  # before the first step, …, after the last
        decay = [min(0.5, (1 + k) / (10 + k)) for k in range(12)]
        share = [math.prod(decay)] + [(1 - decay[k]) * math.prod(decay[k + 1 :]) for k in range(12)]
        assert sum(share) == pytest.approx(1)
        expected = sum(s * w.double() for s, w in zip(share, weights, strict=True))
        averaged = torch.cat([v.flatten() for v in result.ema_state.values()]).double()
        torch.testing.assert_close(averaged, expected, rtol=0, atol=1e-6)

    def test_frozen_parameters_and_buffers_stay(self, tmp_path):
        task = Toy()
        task.model[0].weight.requires_grad_(False)
        task.model.register_buffer("constant", torch.tensor([1.0, 2.0]))
        frozen = task.model[0].weight.clone()
        state = run(task, tmp_path).ema_state
        assert torch.equal(state["0.weight"], frozen)
        assert torch.equal(state["constant"], torch.tensor([1.0, 2.0]))


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 90))
def test_every_row_is_seen_once_an_epoch(tmp_path_factory, rows, batch, images):
    task = Toy(rows)
    run(task, tmp_path_factory.mktemp("toy"), images=images, batch=batch, save_every=10**9)
    shown, positions = (torch.cat(parts).numpy() for parts in zip(*task.seen, strict=True))
    assert np.array_equal(positions, np.arange(images))
    for start in range(0, images, rows):
        epoch = shown[start : start + rows]
        assert len(set(epoch.tolist())) == len(epoch)


class TestLearningRate:
    def rates(self, tmp_path, **more):
        run(Toy(), tmp_path, metrics=tmp_path / "m.jsonl", log_every=0.0, images=160, **more)
        lines = read_metrics(tmp_path / "m.jsonl", "training")
        assert [line["images"] for line in lines] == list(range(8, 161, 8))
        return np.array([line["learning_rate"] for line in lines]) / 1e-2

    def test_warm_up_is_linear(self, tmp_path):
        rates = self.rates(tmp_path, warmup_images=80, decay="constant")
        np.testing.assert_allclose(rates, np.minimum(1, (np.arange(20) * 8 + 1) / 80))

    def test_cosine(self, tmp_path):
        np.testing.assert_allclose(self.rates(tmp_path), np.cos(np.pi / 2 * np.arange(20) / 20) ** 2)

    def test_linear_is_flat_and_then_falls(self, tmp_path):
        rates = self.rates(tmp_path, decay="linear", decay_start=0.75)
        np.testing.assert_allclose(rates, np.interp(np.arange(20) / 20, [0, 0.75, 1], [1, 1, 0]))


class TestSkippedSteps:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_bad_step_changes_nothing_and_is_counted(self, tmp_path, bad):
        task = Toy(hook=lambda step, loss: loss * bad if step == 4 else loss)
        result = run(task, tmp_path, metrics=tmp_path / "m.jsonl")
        assert result.skipped_steps == 1
        assert torch.equal(task.weights[4], task.weights[5])
        assert not torch.equal(task.weights[5], task.weights[6])
        assert all(v.isfinite().all() for v in result.ema_state.values())
        tensors, _ = load_latest(tmp_path)
        assert all(v.isfinite().all() for v in tensors.values())
        assert all(v == 9 for name, v in tensors.items() if name.startswith("optimizer.step"))
        line = read_metrics(tmp_path / "m.jsonl")[-1]
        assert line["skipped_steps"] == 1
        assert 0 < line["loss"] < 10
        assert line["twice"] == pytest.approx(2 * line["loss"])

    def test_a_finite_loss_with_a_gradient_that_is_not(self, tmp_path):
        # The square root's slope at zero is infinite.
        task = Toy(hook=lambda step, loss: loss + ((loss - loss).sqrt() if step == 4 else 0.0))
        result = run(task, tmp_path)
        assert result.skipped_steps == 1
        assert torch.equal(task.weights[4], task.weights[5])

    def test_many_in_a_row_stop_with_a_good_checkpoint(self, tmp_path):
        task = Toy(hook=lambda step, loss: loss * float("nan") if step >= 40 else loss)
        with pytest.raises(GaldiffError, match="non-finite") as caught:
            run(task, tmp_path, images=8000, max_skipped=10, log_every=0.0)
        assert "learning rate" in caught.value.remedy
        assert task.step == 50
        tensors, meta = load_latest(tmp_path)
        assert meta["images"] >= 40 * 8 - 24
        assert all(v.isfinite().all() for v in tensors.values())
        good = run(Toy(), tmp_path, images=800)  # with the cause removed it goes on from there
        assert good.images == 800

    def test_scattered_ones_do_not_stop(self, tmp_path):
        task = Toy(hook=lambda step, loss: loss * float("nan") if step % 2 else loss)
        assert run(task, tmp_path, images=800, max_skipped=10, log_every=0.0).skipped_steps == 50

    def test_log_lines_name_what_bad_steps_were_shown(self, tmp_path):
        """Every batch with row 17 gives no number: one in each of four epochs."""
        task = Toy()
        task.ids = np.arange(1000, 1040)
        task.hook = lambda step, loss: loss * float("nan") if 17 in task.seen[-1][0] else loss
        run(task, tmp_path, metrics=tmp_path / "m.jsonl", images=160)
        expected = [
            {
                "step": step,
                "positions": [8 * step, 8 * step + 8],
                "rows": rows.tolist(),
                "ids": (1000 + rows).tolist(),
            }
            for step, (rows, _) in enumerate(task.seen)
            if 17 in rows
        ]
        assert len(expected) == 4
        (line,) = read_metrics(tmp_path / "m.jsonl")
        assert line["skipped_rows"] == expected
        assert line["skipped_steps"] == 4

    def test_they_are_named_once_and_only_by_their_own_line(self, tmp_path):
        task = Toy(hook=lambda step, loss: loss * float("nan") if step in (3, 4) else loss)
        run(task, tmp_path, metrics=tmp_path / "m.jsonl", log_every=0.0)
        named = {line["images"]: line.get("skipped_rows") for line in read_metrics(tmp_path / "m.jsonl")}
        assert [images for images, shown in named.items() if shown] == [32, 40]
        assert [shown["step"] for images in (32, 40) for shown in named[images]] == [3, 4]
        assert named[40][0]["rows"] == task.seen[4][0].tolist()

    def test_the_error_names_the_last_one(self, tmp_path):
        task = Toy(hook=lambda step, loss: loss * float("nan") if step >= 2 else loss)
        with pytest.raises(GaldiffError) as caught:
            run(task, tmp_path, max_skipped=3, log_every=0.0)
        first = ", ".join(map(str, task.seen[-1][0].tolist()))
        assert f"the last at step 4 of rows {first}" in str(caught.value)

    def test_nothing_but_bad_steps_is_never_a_success(self, tmp_path):
        task = Toy(hook=lambda step, loss: loss * float("nan"))
        with pytest.raises(GaldiffError, match="non-finite"):
            run(task, tmp_path, metrics=tmp_path / "m.jsonl")
        assert "loss" not in read_metrics(tmp_path / "m.jsonl")[-1]


class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
    def test_a_signal_saves_and_stops_and_the_next_run_goes_on(self, tmp_path, monkeypatch, number, code):
        expected = run(Toy(), tmp_path / "expected").ema_state

        def stop(step, loss):
            if step == 4:
                os.kill(os.getpid(), number)
            return loss

        handler, said = signal.getsignal(number), []
        monkeypatch.setattr("galdiff.training.loop.say", lambda stage, text: said.append(text))
        with pytest.raises(Interrupted) as caught:
            run(Toy(hook=stop), tmp_path / "stopped", save_every=10**9)
        assert caught.value.code == code
        assert said == ["stopped after 40 images, which are saved: the same command goes on from there"]
        assert signal.getsignal(number) is handler
        assert load_latest(tmp_path / "stopped")[1]["images"] == 40  # the step was finished
        assert same(run(Toy(), tmp_path / "stopped").ema_state, expected)

    def test_a_signal_in_the_last_step_keeps_what_follows_from_beginning(self, tmp_path):
        def stop(step, loss):
            if step == 9:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

        with pytest.raises(Interrupted):
            run(Toy(hook=stop), tmp_path)
        again = Toy()
        assert run(again, tmp_path).images == 80
        assert again.step == 0


class TestBudget:
    def test_it_ends_by_the_clock_and_goes_on_after_a_stop(self, tmp_path):
        def stop(step, loss):
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

        with pytest.raises(Interrupted):
            run(Toy(hook=stop), tmp_path, budget=0.5)
        spent = load_latest(tmp_path)[1]
        assert spent["images"] == 32
        task = Toy()
        result = run(task, tmp_path, budget=0.5, metrics=tmp_path / "m.jsonl", log_every=0.0)
        assert result.seconds >= 0.5
        assert result.images > 32
        assert int(task.seen[0][1][0]) == 32
        rates = [line["learning_rate"] for line in read_metrics(tmp_path / "m.jsonl")]
        assert rates == sorted(rates, reverse=True)  # driven by the clock
        assert rates[-1] < 1e-3
        again = Toy()
        assert same(run(again, tmp_path, budget=0.5).ema_state, result.ema_state)
        assert again.step == 0


class TestMetrics:
    def test_lines_are_json_with_the_documented_keys(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        run(Toy(), tmp_path, metrics=path, stage="denoiser")
        line = json.loads(path.read_text().splitlines()[-1])
        assert set(line) == {
            *("stage", "images", "loss", "twice", "learning_rate"),
            *("images_per_second", "seconds", "skipped_steps"),
        }
        assert (line["stage"], line["images"]) == ("denoiser", 80)

    def test_a_line_that_was_cut_off_is_left_out_and_others_stay(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"stage": "autoencoder", "images": 9, "loss": 1}\n{"stage": "training", "images": 9}\n{"sta')
        run(Toy(), tmp_path, metrics=path)
        assert [(line["stage"], line["images"]) for line in read_metrics(path)] == [
            ("autoencoder", 9),
            ("training", 80),
        ]


def test_what_a_picture_tells_is_logged(tmp_path):
    task = Toy()
    task.plot = lambda folder, images: {"half": images / 2}
    run(task, tmp_path, plot_every=32, metrics=tmp_path / "m.jsonl", stage="toy")
    lines = [line for line in read_metrics(tmp_path / "m.jsonl") if "half" in line]
    assert lines == [{"stage": "toy", "images": n, "half": n / 2} for n in (32, 64, 80)]


def test_pictures_are_drawn_with_averaged_weights_that_do_not_stay(tmp_path):
    task, drawn = Toy(), []
    task.plot = lambda folder, images: drawn.append((images, flat(task.model.parameters()), task.model.training))
    result = run(task, tmp_path, plot_every=32, metrics=tmp_path / "m.jsonl")
    assert [(images, training) for images, _, training in drawn] == [(32, False), (64, False), (80, False)]
    assert torch.equal(drawn[-1][1], flat(result.ema_state.values()))
    assert same(result.ema_state, run(Toy(), tmp_path / "without").ema_state)


class TestValidation:
    """Losses that a list dictates, validated every 16 of 80 images."""

    def task(self, losses, hook=lambda step, loss: loss):
        task, left = Toy(hook=hook), list(losses)
        task.averages = []

        def validate():
            task.averages.append((flat(task.model.parameters()), task.model.training))
            return {"loss": left.pop(0), "other": 1.0}

        task.validate = validate
        return task

    def test_the_best_average_is_kept(self, tmp_path):
        task = self.task([3.0, 1.0, float("nan"), 2.0, 1.0])
        result = run(task, tmp_path, validate_every=16, metrics=tmp_path / "m.jsonl")
        assert result.best_images == 32
        assert torch.equal(flat(result.best_state.values()), task.averages[1][0])
        assert not any(training for _, training in task.averages)
        assert torch.equal(flat(result.ema_state.values()), task.averages[-1][0])
        lines = [line for line in read_metrics(tmp_path / "m.jsonl") if "validation_loss" in line]
        assert [line["images"] for line in lines] == [16, 32, 48, 64, 80]
        assert {line["validation_other"] for line in lines} == {1.0}
        assert same(result.ema_state, run(Toy(), tmp_path / "without").ema_state)
        again = run(self.task([]), tmp_path, validate_every=16)
        assert (again.best_images, same(again.best_state, result.best_state)) == (32, True)

    def test_it_stops_early_and_stays_stopped(self, tmp_path):
        task = self.task([3.0, 1.0, 2.0, 1.5])
        result = run(task, tmp_path, validate_every=16, early_stopping=2)
        assert (result.images, result.best_images, task.step) == (64, 32, 8)
        again = self.task([])
        assert run(again, tmp_path, validate_every=16, early_stopping=2).images == 64
        assert again.step == 0

    def test_patience_goes_on_after_a_stop(self, tmp_path):
        def stop(step, loss):
            if step == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

        with pytest.raises(Interrupted):
            run(self.task([3.0, 1.0, 2.0], stop), tmp_path, validate_every=16, early_stopping=2)
        result = run(self.task([1.5, 0.5]), tmp_path, validate_every=16, early_stopping=2)
        assert (result.images, result.best_images) == (64, 32)


class TestParts:
    def test_each_is_clipped_and_paced_for_itself(self, tmp_path):
        """Against two optimizers in a plain loop; the second part has no gradient in the first five steps."""

        class Two:
            def __init__(self):
                torch.manual_seed(1)
                self.model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
                self.rows, self.step = 16, 0

            def parts(self):
                return [(self.model[0], 1.0), (self.model[1], 0.1)]

            def loss(self, rows, positions):
                x = normal(0, "x", torch.as_tensor(positions), (3,))
                loss = 100 * self.model[0](x).square().mean()
                if positions.start >= 40:
                    loss = loss + 0.01 * self.model[1](x).square().mean()
                self.step += 1
                return loss, {}

        task, plain = Two(), Two()
        interrupted = Two()
        interrupted.plot = lambda folder, images: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):  # after the save at 24, before the second part has begun
            run(interrupted, tmp_path, plot_every=32, decay="constant")
        run(task, tmp_path, clip=1.0, decay="constant")
        assert task.step == 7
        optimizers = [
            torch.optim.AdamW(part.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.0)
            for part, rate in zip(plain.model, (1e-2, 1e-3), strict=True)
        ]
        for step in range(10):
            for optimizer in optimizers:
                optimizer.zero_grad()
            plain.loss(None, range(8 * step, 8 * step + 8))[0].backward()
            for part, optimizer in zip(plain.model, optimizers, strict=True):
                nn.utils.clip_grad_norm_(part.parameters(), 1.0)
                optimizer.step()
        torch.testing.assert_close(flat(task.model.parameters()), flat(plain.model.parameters()), rtol=0, atol=1e-6)


def test_a_finished_training_returns_what_it_gave(tmp_path):
    first = run(Toy(), tmp_path)
    task = Toy()
    again = run(task, tmp_path)
    assert task.step == 0
    assert same(again.ema_state, first.ema_state)
    assert (again.images, again.seconds) == (first.images, first.seconds)

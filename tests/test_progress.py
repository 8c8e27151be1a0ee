"""Progress: lines where there is no terminal, a bar where there is one, nothing where none is wanted."""

import io

import pytest

from galdiff import progress
from galdiff.progress import quiet, stage_progress


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_plain_lines_come_every_few_seconds_and_at_the_end(capsys, clock):
    with stage_progress("autoencoder", total=1000, unit="images") as bar:
        for _ in range(100):
            clock.now += 0.12
            bar.update(10, loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # after 5 s, after 10 s, at the end of 12 s
    assert all(line.startswith("autoencoder ") for line in lines)
    assert "420/1,000 images  42 %  83 images/s  loss 0.25  eta 0:0" in lines[0]
    assert "1,000/1,000 images  100 %" in lines[-1]
    assert "eta" not in lines[-1]


def test_the_rate_of_a_resumed_stage_counts_this_session(clock):
    with quiet(), stage_progress("denoiser", total=1000, unit="images", done=900) as bar:
        clock.now += 2
        bar.update(50)
        assert bar.done == 950
        assert bar.rate == pytest.approx(25)


def test_quiet_is_quiet_and_nests(capsys, clock):
    with quiet():
        with quiet(), stage_progress("a", total=1, unit="images") as bar:
            clock.now += 10
            bar.update(1)
        with stage_progress("b", total=1, unit="images"):
            pass
    assert capsys.readouterr().err == ""
    with stage_progress("c", total=1, unit="images"):
        pass
    assert "c " in capsys.readouterr().err


def test_an_error_ends_the_bar_and_passes(capsys):
    def fail():
        with stage_progress("a", total=10, unit="images") as bar:
            bar.update(3)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert "3/10 images" in capsys.readouterr().err


def test_nothing_to_do_divides_by_nothing(capsys):
    with stage_progress("a", total=0, unit="images"):
        pass
    assert "0/0 images" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch, clock):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with stage_progress("latents", total=10, unit="images") as bar:
        clock.now += 1
        bar.update(10, loss=0.5)
    assert "latents" in terminal.getvalue()
    assert "10/10 images" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()

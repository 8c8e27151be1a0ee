"""Kill a small run at random moments and compare what it ends with to a run that nobody killed.

    python benchmarks/kills.py -n 60 --seed 0 -o kills.json

All stages of a small quickstart run in a process of their own. Its moments of death are drawn uniformly over the time
that the whole run takes, so that each part of it is hit as often as it is long; a killed run is started again until it
has been killed ``--deaths`` times, and then ended. Weights, latents and samples must be those of the undisturbed run,
bit for bit, and every figure of the evaluation the same number (CPU, one thread).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from galdiff.atomic import write_json

SETTINGS: dict[str, Any] = {
    "data.simulate.n": 320,
    "data.simulate.size": 32,
    "data.size": 32,
    "autoencoder": {"images": 2560, "width": 16, "blocks": 1, "save_every": 256, "plot_every": 1280},
    "denoiser": {
        "images": 6400,
        "backbone": {"kind": "unet", "widths": [16]},
        "save_every": 256,
        "plot_every": 3200,
    },
    "sampling": {"n": 16, "steps": 3, "guidance": 1.5, "asks": {"edge_on": {"votes": {"edge_on": 0.9}}, "any": {}}},
}
WORKER = """
import json, sys, torch
torch.set_num_threads(1)
import galdiff
galdiff.train("quickstart", out=sys.argv[1], quiet=True, **json.loads(sys.argv[2]))
"""


def start(out: Path) -> subprocess.Popen[bytes]:
    """Begin or go on with the run under a folder."""
    arguments = [sys.executable, "-c", WORKER, str(out), json.dumps(SETTINGS)]
    return subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def killed(out: Path, seconds: float | None) -> bool:
    """Let a run live for so many seconds; whether it had to be killed. What goes wrong in it ends the campaign."""
    worker = start(out)
    try:
        _, said = worker.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        worker.send_signal(signal.SIGKILL)
        _, said = worker.communicate()
    if worker.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"{out}: the run did not go on\n{said.decode()}")
    return worker.returncode != 0


def stage(run: Path) -> str:
    """Name the last stage that a run has begun."""
    begun = sorted((run / "stages").glob("*.begun.json"), key=lambda p: p.stat().st_mtime)
    return begun[-1].name.removesuffix(".begun.json") if begun else "start"


def numbers(value: Any) -> Any:
    """Keep the figures of an evaluation without the seconds that they took."""
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items() if "seconds" not in k}
    return [numbers(v) for v in value] if isinstance(value, list) else value


def files(run: Path) -> dict[str, Path]:
    """Name the files of a run but those that tell its history: records, journals, and checkpoints with their clock."""
    kept = (p for p in run.rglob("*") if p.is_file() and p.parent.name != "stages" and "checkpoint-" not in p.name)
    return {str(p.relative_to(run)): p for p in kept if p.suffix not in {".jsonl", ".html"}}


def differences(whole: Path, other: Path) -> list[str]:
    """Name the files that two finished runs do not share, byte for byte; evaluations by their numbers."""
    a, b = files(whole), files(other)
    found = sorted(a.keys() ^ b.keys())
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name].read_bytes(), b[name].read_bytes()
        if name == "evaluation.json":
            x, y = (json.dumps(numbers(json.loads(text))).encode() for text in (x, y))
        found += [name] if x != y else []
    return found if (other / "report.html").exists() else [*found, "report.html"]


def main() -> None:
    """Kill, go on, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=60, help="kills, at least; the last run is taken to its end")
    parser.add_argument("--life", type=float, default=0.2, help="mean life, in lengths of the whole run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        killed(Path(folder, "whole"), None)
        length = time.monotonic() - begun
        print(f"the whole run takes {length:.0f} s", flush=True)
        while sum(len(run["killed_in"]) for run in runs) < options.n:
            out, killed_in = Path(folder, f"killed-{len(runs)}"), []
            while killed(out, rng.expovariate(1 / (options.life * length))):
                killed_in.append(stage(out / "quickstart"))
            wrong = differences(Path(folder, "whole", "quickstart"), out / "quickstart")
            runs.append({"killed_in": killed_in, "differences": wrong})
            print(*killed_in, wrong or "the same", flush=True)
            write_json(options.output, {"seconds": round(length, 1), "seed": options.seed, "runs": runs})
    if any(run["differences"] for run in runs):
        raise SystemExit("killed runs ended with something else")


if __name__ == "__main__":
    main()

"""What checkpoints cost: time that training stands still, and how much slower its steps are while one is
written.

    python benchmarks/checkpoint_stall.py --rounds 5 --steps 40 --saves 4

The model, data and batches of train_cpu.py. In each round one run saves `--saves` times and one never; both
make the same steps. The cost of a save is the difference of their times over the number of saves: copying,
and whatever hashing and writing behind training take from its cores. `share` is that cost over 60 seconds:
what training loses at one save a minute. `stall` is the part of it in which training stood still, as the
run's own records tell.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from train_cpu import BATCH, WARM_UP, prepared, recipe


def run(root: Path, steps: int, saves: int, threads: int) -> dict[str, Any]:
    """One run, with so many saves at even distances."""
    import torch

    from ctllm_ray.train import records, session
    from ctllm_ray.train.steppers.torch import TorchStepper

    torch.set_num_threads(threads)
    ends: list[float] = []

    class Timed(TorchStepper):
        def apply(self, rate: float) -> torch.Tensor:
            norm = super().apply(rate)
            ends.append(time.perf_counter())
            return norm

    of = recipe(root, steps, f"run-{os.getpid()}")
    every = BATCH * (-(-steps // (saves + 1))) if saves else 0
    resources = of.resources.train.model_copy(update={"keep_every_tokens": every})
    of = of.model_copy(update={"resources": of.resources.model_copy(update={"train": resources})})
    session.train(of, Timed)
    told = [e for e in records.read_events(of.folder("train")) if e.kind == "checkpoint" and e.step < steps]
    return {
        "seconds": ends[-1] - ends[WARM_UP - 1],
        "saves": len(told),
        "stall_s": [e.facts["stall_s"] for e in told],
        "write_s": [e.facts["write_s"] for e in told],
        "bytes": told[0].facts["bytes"] if told else 0,
    }


def main() -> None:
    """Rounds of both runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--root", type=Path, help="run once over this folder and print figures (used by the script)"
    )
    given = parser.parse_args()
    if given.root:
        print(json.dumps(run(given.root, given.steps, given.saves, given.threads)))
        return
    costs, stalls, writes = [], [], []
    with tempfile.TemporaryDirectory(prefix="checkpoint-stall-") as folder:
        prepared(Path(folder), given.steps)
        for number in range(given.rounds):
            found = {}
            for saves in (given.saves, 0) if number % 2 else (0, given.saves):
                options = ["--root", folder, "--steps", str(given.steps), "--saves", str(saves)]
                command = [sys.executable, __file__, *options, "--threads", str(given.threads)]
                environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                found[bool(saves)] = json.loads(done.stdout.splitlines()[-1])
            costs.append((found[True]["seconds"] - found[False]["seconds"]) / found[True]["saves"])
            stalls += found[True]["stall_s"]
            writes += found[True]["write_s"]
            print(number, found, file=sys.stderr, flush=True)
    size = found[True]["bytes"] / 1e6
    print(f"checkpoint {size:.0f} MB, written behind training in {statistics.median(writes):.2f} s (median)")
    print(f"training stood still {statistics.median(stalls):.3f} s (median), {max(stalls):.3f} s (most)")
    cost = statistics.median(costs)
    print(
        f"cost of a save {cost:.3f} s (median of {len(costs)} rounds, {min(costs):.3f} to {max(costs):.3f})"
    )
    print(
        f"share at one save a minute {cost / 60:.2%}, of which standing still "
        f"{statistics.median(stalls) / 60:.2%}"
    )


if __name__ == "__main__":
    main()

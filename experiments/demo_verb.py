"""The verb `demo`: the whole line on one small maze, from demonstrations to a control loop without torch.

It calls the same functions as the verbs; each step prints the command that does it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import UserError
from ..files import is_empty
from .cli import main, parse
from .ledger import Ledger
from .recipe import get_recipe

RECIPE = "pointmaze-medium"
MARK = ".noisepilot-demo"
"""a file in every folder that a demo made: what holds it may be replaced"""


@dataclass(frozen=True)
class Demo:
    """Options of the demo."""

    out: Path = Path("demo")
    """folder to write; a finished or interrupted demo there is replaced"""
    episodes: int = 1000
    """seeded episodes that base, tuned policy and student are measured on"""
    quick: bool = False
    """a smoke run in a minute: too short to learn anything"""


def demo(argv: list[str]) -> int:
    """Run the line and print what came out."""
    config = parse(Demo, argv, "noisepilot demo")
    started = time.perf_counter()
    _start_over(config.out)
    stages = _stages(config)
    for number, (words, command) in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] {words}\n$ noisepilot {shlex.join(command)}", flush=True)
        if (code := _run(command)) != 0:
            return code
    _summary(config, time.perf_counter() - started)
    return 0


def _stages(config: Demo) -> list[tuple[str, list[str]]]:
    out, q = config.out, config.quick
    data, base, tuned, student = (str(out / name) for name in ("demonstrations.zarr", "base", "tuned", "student"))
    file, episodes = str(out / "policy.onnx"), str(50 if q else config.episodes)
    env_id, kwargs = get_env()
    in_env = ["--env", env_id, "--env-kwargs", kwargs]
    short = {
        "pretrain": ["--bc.grad-steps", "200"],
        "finetune": ["--budget.iterations", "1", "--budget.eval-episodes", "20"],
        "distill": ["--distill.fit.grad-steps", "200", "--distill.decisions", "640", "--eval-episodes", "20"],
    }
    extra = {name: options if q else [] for name, options in short.items()}
    return [
        (
            "collect 150 demonstrations of a noisy controller",
            [
                "data",
                "collect",
                *in_env,
                "--actor",
                "waypoint",
                "--noise",
                "0.5",
                "--episodes",
                "150",
                "--out",
                data,
            ],
        ),
        (
            "learn a diffusion policy from them",
            ["pretrain", RECIPE, "--data", data, "--out", base, *extra["pretrain"]],
        ),
        ("measure it", ["eval", base, "--episodes", episodes]),
        (
            "improve it by reinforcement learning (DPPO)",
            ["finetune", RECIPE, "--policy", base, "--out", tuned, *extra["finetune"]],
        ),
        ("measure it on the same episodes", ["eval", tuned, "--episodes", episodes]),
        (
            "distill its denoising chain into one step",
            ["distill", RECIPE, "--policy", tuned, "--out", student, *extra["distill"]],
        ),
        ("measure the student", ["eval", student, "--episodes", episodes]),
        ("is the tuned policy better than its base?", ["compare", base, tuned]),
        ("does the student keep up with the tuned policy?", ["compare", tuned, student]),
        ("write the student as one file", ["export", student, "--out", file, "--data", data]),
        (
            "run the file in a 100 Hz control loop, without torch",
            ["run", file, "--hz", "100", "--episodes", "1" if q else "5"],
        ),
        ("report", ["report", base, tuned, student, "--out", str(out / "report.html")]),
    ]


def get_env() -> tuple[str, str]:
    """The demo's environment and its keyword arguments as JSON."""
    env = get_recipe(RECIPE).env
    return env.id, json.dumps(env.kwargs)


def _start_over(out: Path) -> None:
    # Only a folder that looks like a demo's is removed: --out may name anything.
    if not is_empty(out):
        if not (out / MARK).exists():
            raise UserError(f"{out} holds something else than a demo: give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _run(command: list[str]) -> int:
    # The control loop gets a process of its own, so that it shows what runs without torch.
    if command[0] == "run":
        return subprocess.run([sys.executable, "-m", "noisepilot", *command], check=False).returncode
    return main(command)


def _summary(config: Demo, seconds: float) -> None:
    names = ("base", "tuned", "student")
    ledgers = {name: Ledger.load(config.out / name / "eval" / "final.json") for name in names}
    title = f"{len(ledgers['base'])} episodes each"
    table = Table("policy", "success", "95 % interval", "mean time to goal", title=title)
    for name, ledger in ledgers.items():
        success, goal = ledger.success_interval(), ledger.goal_interval()
        rate = ("-", "-") if success is None else (f"{success.mean:.1%}", f"{success.low:.1%} to {success.high:.1%}")
        table.add_row(name, *rate, "-" if goal is None else f"{goal.mean:.2f} s")
    Console().print(table)
    print(f"report: {config.out / 'report.html'}\n{seconds / 60:.1f} minutes")

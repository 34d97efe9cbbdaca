"""The command line: a table of verbs, each imported when it is used, and one way of parsing.

A verb is a function `(argv) -> exit code`. Options are the fields of a frozen dataclass, parsed by tyro; a recipe is
the default that they override.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TypeVar

from ..errors import UserError, unknown

Config = TypeVar("Config")

VERBS: dict[str, tuple[str, str]] = {
    "demo": (
        "demo_verb:demo",
        "learn a maze from demonstrations, improve it by RL, distill, export and run it",
    ),
    "data": ("data_verbs:data", "collect, inspect, check and convert demonstrations"),
    "pretrain": ("train_verbs:pretrain", "learn a diffusion or flow policy from demonstrations"),
    "finetune": ("train_verbs:finetune", "improve a policy by reinforcement learning in simulation"),
    "bakeoff": ("train_verbs:bakeoff", "fine-tune one policy with several methods and compare them"),
    "eval": ("eval_verbs:evaluate", "measure a policy on seeded episodes, or on held-out data"),
    "compare": ("report_verbs:compare", "say whether one evaluation is better than another, and how sure"),
    "distill": ("train_verbs:distill", "train a fast student of a policy, by one method or the best of several"),
    "export": ("deploy_verbs:export", "write a policy as one .onnx, .npz or .c file with a parity certificate"),
    "run": ("deploy_verbs:run", "run an exported or served policy in a fixed-rate control loop, without torch"),
    "latency": (
        "latency_verb:latency",
        "measure success against delay in each mode of the loop, and advise which to run",
    ),
    "serve": ("serve_verb:serve", "serve an exported file to robots by websocket, in openpi's protocol"),
    "ros2": ("ros2_verb:ros2", "play an exported policy in a ROS 2 node, topics in and commands out"),
    "report": ("report_verbs:report", "write one HTML page about a run"),
    "import": ("import_verbs:import_weights", "bring a policy of Diffusion Policy, LeRobot, DPPO or ReinFlow"),
    "bench": ("bench_verbs:bench", "measure speed beside its peers and the machine's limits"),
    "envs": ("envs_verb:envs", "list, install and try suites of environments"),
    "doctor": ("doctor:doctor", "say what works on this machine, and the fix for what does not"),
    "list": ("list_verb:list_all", "list recipes, algorithms and environments"),
}

CONTINUE = {
    "pretrain": ": the same command with --resume continues",
    "finetune": ": the same command with --resume continues",
    "bakeoff": ": the same command continues",
    "data": ": the same command continues a collection",
}
"""what Ctrl-C did not destroy"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, 2 for a user's error, 130 for Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        from .. import __version__

        print(f"noisepilot {__version__}")
        return 0
    try:
        return _verb(argv[0])(argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output has left
        return 0
    except KeyboardInterrupt:
        print(f"\nstopped{CONTINUE.get(argv[0], '')}", file=sys.stderr)
        return 130


def overview() -> str:
    """The help text of the whole."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {words}" for name, (_, words) in VERBS.items())
    return (
        "noisepilot: diffusion and flow policies from demonstrations, through RL, to one step on a robot\n\n"
        f"usage: noisepilot VERB [options]\n\n{verbs}\n\n"
        "noisepilot VERB --help shows a verb's options; `noisepilot demo` is a good start."
    )


def _verb(name: str) -> Callable[[list[str]], int]:
    if name not in VERBS:
        raise unknown("verb", name, VERBS)
    _draw_without_display()
    module, _, function = VERBS[name][0].partition(":")
    return getattr(import_module(f".{module}", __package__), function)


def _draw_without_display() -> None:
    # MuJoCo reads MUJOCO_GL when it is imported, and without it expects a screen.
    chosen = "MUJOCO_GL" in os.environ or "mujoco" in sys.modules
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and not chosen:
        with suppress(OSError):
            ctypes.CDLL("libEGL.so.1")
            os.environ["MUJOCO_GL"] = "egl"


def parse(config: type[Config], argv: Sequence[str], prog: str, default: Config | None = None) -> Config:
    """Fill a dataclass from options, `--nested.field value`, over a default.

    A wrong option prints tyro's explanation, with the nearest right one, and exits with 2.
    """
    import tyro

    settings = (tyro.conf.AvoidSubcommands,)
    if default is None:
        parsed = tyro.cli(config, args=list(argv), prog=prog, config=settings)
    else:
        parsed = tyro.cli(config, args=list(argv), prog=prog, config=settings, default=default)
    _note(getattr(getattr(parsed, "env", None), "id", ""))
    return parsed


def _note(env: str) -> None:
    """Say how an environment differs from the one that its name stands for."""
    if not env:
        return
    from ..envs.d4rl import named

    found = named(env)
    if found and found.env:
        print(f"{env}: {found.env}, {found.note}", file=sys.stderr)


def take_option(argv: list[str], name: str, default: str) -> tuple[str, list[str]]:
    """The value of `--name value` (or `--name=value`) and the rest, for options that choose the defaults of others."""
    for i, word in enumerate(argv):
        if word == name:
            if i + 1 == len(argv):
                raise UserError(f"{name} needs a value")
            return argv[i + 1], argv[:i] + argv[i + 2 :]
        if word.startswith(name + "="):
            return word.partition("=")[2], argv[:i] + argv[i + 1 :]
    return default, argv


def take_positional(argv: list[str], default: str) -> tuple[str, list[str]]:
    """A leading word that is no option, and the rest."""
    return (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (default, argv)

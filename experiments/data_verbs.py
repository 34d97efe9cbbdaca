"""`noisepilot data`: collect demonstrations, look at a dataset, check it, convert it, mix sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ..errors import UserError, unknown
from .cli import parse
from .data_tables import show
from .data_writing import Convert, Mix, convert, mix
from .env_ref import EnvRef

if TYPE_CHECKING:
    from ..datasets.checks import Finding


@dataclass(frozen=True)
class Collect:
    """Collect episodes of an actor in an environment; an interrupted collection continues where it was."""

    actor: str
    """`waypoint` (PointMaze), `expert` (suites with scripted ones), `random`, a policy folder or run, or
    FILE.npz[:snapshot]"""
    out: str
    """dataset folder to write or continue"""
    episodes: int = 100
    """episodes in all, those already there included"""
    steps: int = 0
    """least number of steps in all; 0: `episodes` counts"""
    noise: float = 0.0
    """disturbance in units of the action; for an .npz actor a factor on its own (1: as trained)"""
    seed: int = 0
    """with its index fixes every episode's start and noise"""
    slots: int = 16
    """environments that step together; the data does not depend on it"""
    env: EnvRef = field(default_factory=EnvRef)


@dataclass(frozen=True)
class Info:
    """Show what a dataset holds."""

    path: tyro.conf.Positional[str]
    """dataset of any format"""
    json: bool = False
    """print JSON"""


@dataclass(frozen=True)
class Check:
    """Look for faults in a dataset; exits with 1 if there are errors."""

    path: tyro.conf.Positional[str]
    """dataset of any format"""
    env: EnvRef = field(default_factory=EnvRef)
    """environment whose shapes, limits and rate the data should have"""
    json: bool = False
    """print JSON"""


def data(argv: Sequence[str]) -> int:
    """Run `data <verb> ...`; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<8} {_summary(config)}" for name, (config, _) in VERBS.items()]
        print("\n".join(["usage: noisepilot data VERB ...", "", *lines]))
        return 0
    if argv[0] not in VERBS:
        raise unknown("data verb", argv[0], VERBS)
    config, run = VERBS[argv[0]]
    words = list(argv[1:])
    if config is Collect and words and not words[0].startswith("-"):
        words.insert(0, "--env")  # the environment may come first, without its option
    return run(parse(config, words, f"noisepilot data {argv[0]}"))


def collect(config: Collect) -> int:
    """Collect and say what came out."""
    from ..envs import make_core
    from . import collect as collecting
    from .controllers import make_controller
    from .progress import Progress

    if min(config.episodes, config.slots) < 1:
        raise UserError(f"{config.episodes} episodes in {config.slots} slots: both must be at least 1")
    core = make_core(config.env.id, min(config.slots, config.episodes), **config.env.kwargs)
    try:
        controller = make_controller(config.actor, core.spec, config.noise, core)
        source = f"{Path(config.actor).name}, noise {config.noise:g}"
        total, unit = (config.steps, "steps") if config.steps else (config.episodes, "episodes")
        with Progress(f"collect {config.env.id}", total=total, unit=unit) as progress:
            summary = collecting.collect(
                controller,
                core,
                config.episodes,
                config.out,
                steps=config.steps,
                seed=config.seed,
                source=source,
                progress=progress.update,
            )
    finally:
        core.close()
    rate = "" if summary.success_rate is None else f", success {100 * summary.success_rate:.1f} %"
    returns = f"return {summary.mean_return:.4g} ± {summary.std_return:.3g}{rate}"
    voided = f", {summary.voided} lost episodes recorded again" if summary.voided else ""
    print(f"{config.out}: {summary.episodes} episodes, {summary.steps} steps, {returns}{voided}")
    return 0


def info(config: Info) -> int:
    """Print counts, returns, provenance and one line per key."""
    from ..datasets.summary import summarise

    facts = summarise(config.path)
    if config.json:
        print(json.dumps(facts, indent=2))
        return 0
    arrays = facts.pop("arrays")
    known = [(name, _plain(value)) for name, value in facts.items() if value not in ("", None)]
    show(config.path, ("", ""), known)
    header = ("key", *next(iter(arrays.values())))
    show("", header, [(key, *map(_plain, row.values())) for key, row in arrays.items()])
    return 0


def check(config: Check) -> int:
    """Print the findings, the worst first."""
    from ..datasets.checks import Finding
    from ..datasets.checks import check as find
    from ..datasets.convert import verify
    from ..datasets.readers import load

    found = find(load(config.path, strict=False), config.env.spec() if config.env.id else None)
    if verify(config.path) is False:
        message = "not what was written: the checksum differs; convert again, or restore the set"
        found.insert(0, Finding("error", "sha256", message))
    if config.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        show(config.path, ("", "key", ""), [(f.level, f.key, f.message) for f in found])
        print(_verdict(found))
    return int(any(finding.level == "error" for finding in found))


VERBS: dict[str, tuple[Any, Callable[[Any], int]]] = {
    "collect": (Collect, collect),
    "info": (Info, info),
    "check": (Check, check),
    "convert": (Convert, convert),
    "mix": (Mix, mix),
}


def _verdict(found: Sequence[Finding]) -> str:
    count = {level: sum(f.level == level for f in found) for level in ("error", "warning")}
    return f"{count['error']} errors, {count['warning']} warnings"


def _summary(config: Any) -> str:
    return config.__doc__.split(";")[0].rstrip(".")


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""`noisepilot envs`: which suites of environments are installed, install one, try them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from ..envs import isolated, libero_assets
from ..envs.suites import SUITES, Suite
from ..errors import UserError, at_least, unknown
from .cli import parse
from .drawing import explain


@dataclass(frozen=True)
class List:
    """List the suites: what is installed, what its environments are called, and how it is installed."""

    json: bool = False
    """print JSON"""


@dataclass(frozen=True)
class Install:
    """Install a suite, beside this Python as a rule, with the versions that work together; asks nothing."""

    suite: tyro.conf.Positional[str]
    assets: str = ""
    """a folder with LIBERO's meshes and textures, which is checked and remembered; none: from the package registry"""
    dry_run: bool = False
    """only say what would be run"""


@dataclass(frozen=True)
class Check:
    """Build an environment of each suite and step it; exits with 1 if an installed one does not run."""

    suites: tyro.conf.Positional[tuple[str, ...]] = ()
    """none: all"""
    seconds: float = 1.0
    """of stepping per measurement"""
    json: bool = False
    """print JSON"""

    def __post_init__(self) -> None:
        at_least(0, self, "seconds")
        for name in self.suites:
            _known(name)


@dataclass(frozen=True)
class Trial:
    """What came of trying one suite."""

    suite: str
    version: str
    state: str
    """runs, absent or broken"""
    steps_per_s: float | None = None
    """in one worker (or native slot)"""
    steps_per_s_2: float | None = None
    """in two"""
    obs: str = ""
    """observations and their lengths"""
    pictures_per_s: str = ""
    """with a camera of 84 x 84; empty: not tried"""
    fix: str = ""


def envs(argv: Sequence[str]) -> int:
    """Run `envs <verb> ...`; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<8} {config.__doc__.split(';')[0].rstrip('.')}" for name, (config, _) in VERBS.items()]
        print("\n".join(["usage: noisepilot envs VERB ...", "", *lines, "", "`noisepilot list envs` lists every id."]))
        return 0
    if argv[0] not in VERBS:
        raise unknown("envs verb", argv[0], VERBS)
    config, run = VERBS[argv[0]]
    return run(parse(config, argv[1:], f"noisepilot envs {argv[0]}"))


def list_suites(config: List) -> int:
    """One line per suite."""
    rows = [
        {"suite": name, "version": _state(suite), "environments": suite.ids, "install": " && ".join(suite.commands())}
        for name, suite in SUITES.items()
    ]
    if config.json:
        print(json.dumps(rows, indent=1))
    else:
        _table(tuple(rows[0]), [[row[key] or "-" for key in row] for row in rows])
    return 0


def install(config: Install) -> int:
    """Run pip with the suite's interpreter, this one as a rule; the exit code is pip's.

    Raises:
        UserError: for an unknown suite, where Python has no pip, or for assets that are not the suite's.
    """
    suite = _known(config.suite)
    if config.assets and not suite.assets:
        raise UserError(f"{config.suite} needs no assets: leave --assets out")
    if config.dry_run:
        print("\n".join(suite.commands()))
        return 0
    if config.assets:
        print(f"{libero_assets.use(Path(config.assets))} files of {config.assets} are as they should be")
    if suite.isolated and (code := isolated.make(suite.isolated)):
        return code
    python = str(isolated.interpreter(suite.isolated)) if suite.isolated else sys.executable
    calls = [[python, "-m", "pip", "install", "--no-input", *args] for args in suite.install]
    if subprocess.run([*calls[0][:3], "--version"], capture_output=True).returncode:
        raise UserError(f"{python} has no pip: {python} -m ensurepip")
    for call in calls:
        if code := subprocess.run(call).returncode:
            print(f"pip ended with {code}; to see for yourself: {' '.join(call)}", file=sys.stderr)
            return code
    if suite.assets and not config.assets and (code := libero_assets.download()):
        return code
    print(f"{config.suite} is installed: noisepilot envs check {config.suite}")
    return 0


def check(config: Check) -> int:
    """Try suites one after the other."""
    trials = [trial(name, config.seconds) for name in config.suites or SUITES]
    if config.json:
        print(json.dumps([asdict(found) for found in trials], indent=1))
    else:
        header = ("suite", "version", "state", "steps/s, 1 worker", "2 workers", "observations", "pictures/s", "fix")
        _table(header, [[_word(value) for value in asdict(found).values()] for found in trials])
    return int(any(found.state == "broken" for found in trials))


def trial(name: str, seconds: float) -> Trial:
    """Build the suite's example with one worker, with two, and with a camera."""
    from ..envs.registry import TABLE

    suite = SUITES[name]
    if not suite.version:
        return Trial(name, "", "absent", fix=f"noisepilot envs install {name}")
    if suite.example not in TABLE:
        return Trial(name, suite.version, "not tried")
    if suite.lacks:
        return Trial(name, suite.version, "absent", fix=f"{suite.lacks}: noisepilot envs install {name}")
    try:
        obs, one = _speed(suite.example, 1, {}, seconds)
        _, two = _speed(suite.example, 2, {}, seconds)
    except Exception as error:  # whatever a suite raises is the finding
        return Trial(name, suite.version, "broken", fix=_fix(suite, error))
    found = Trial(name, suite.version, "runs", one, two, obs)
    if not suite.pictures:
        return found
    try:
        _, pictures = _speed(suite.example, 1, {**suite.pictures, "image_height": 84, "image_width": 84}, seconds)
    except Exception as error:
        words, fix = explain(str(error))
        return Trial(name, suite.version, "runs", one, two, obs, f"none: {words}", fix)
    return Trial(name, suite.version, "runs", one, two, obs, f"{pictures:.0f}")


def _speed(env: str, num_envs: int, kwargs: Mapping[str, Any], seconds: float) -> tuple[str, float]:
    """Observations in words, and steps per second of `num_envs` slots that stand still."""
    import numpy as np

    from ..envs import make_core

    core = make_core(env, num_envs, **kwargs)
    try:
        low, high = np.array(core.spec.action.low), np.array(core.spec.action.high)
        still = np.clip(np.zeros_like(low), low, high)[None, None].repeat(num_envs, 0).repeat(4, 1)
        core.reset(range(num_envs))
        core.step(still[:, :1])  # what is compiled or loaded at first use is not counted
        count, started = 0, time.perf_counter()
        while count == 0 or time.perf_counter() < started + seconds:
            step = core.step(still)
            count += int(step.valid.sum())
            if ended := np.flatnonzero(step.ended).tolist():
                core.reset(ended, ended)
        rate = count / (time.perf_counter() - started)
    finally:
        core.close()
    return ", ".join(f"{name} {'x'.join(map(str, a.shape))}" for name, a in core.spec.obs.items()), rate


def _fix(suite: Suite, error: Exception) -> str:
    """The command that repairs a suite, as far as its error tells."""
    if missing := re.search(r"No module named '([\w-]+)[\w.-]*'", str(error)):
        return f"{missing[0]}: pip install {missing[1]}"
    words, fix = explain(f"{type(error).__name__}: {error}")
    return f"{words}: {fix or ' && '.join(suite.commands())}"


def _state(suite: Suite) -> str:
    """The version, and what is missing beside it."""
    return f"{suite.version}, without {suite.lacks}" if suite.version and suite.lacks else suite.version


def _known(name: str) -> Suite:
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    return SUITES[name]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from .table import show

    show(header, rows)


def _word(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value or "-")


VERBS: dict[str, tuple[Any, Callable[[Any], int]]] = {
    "list": (List, list_suites),
    "install": (Install, install),
    "check": (Check, check),
}

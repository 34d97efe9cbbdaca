"""The verb `latency`: how much delay a policy bears, in which mode of the control loop.

Imports torch only for policies in it, which have not been exported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from ..errors import UserError, at_least
from .cli import parse
from .env_ref import EnvRef
from .serve_verb import read_token


@dataclass(frozen=True)
class Latency:
    """Measure success against delay in every mode of the control loop, and say which to run."""

    policy: tyro.conf.Positional[str]
    """file written by `noisepilot export`, address of `noisepilot serve`, or policy folder or run, whose flow is guided
    along the running chunk in mode rtc"""
    env: EnvRef = field(default_factory=EnvRef)
    """empty: the one the policy was made for"""
    delays: tuple[float, ...] = (0.0, 50.0, 100.0, 200.0)
    """milliseconds from an observation to the chunk made of it"""
    modes: str = ""
    """sync, async, rtc, with commas between; empty: all that the policy can be played in"""
    execute: tuple[int, ...] = ()
    """actions of a chunk that are played before the next plan; empty: what the policy was made for"""
    jitter_ms: float = 0.0
    """evenly up to this much more delay, drawn for every chunk"""
    drop: float = 0.0
    """chance that an observation is lost"""
    ensemble: float | None = None
    """temporal ensembling: older chunks weigh exp(m) times the next newer one, at m = ENSEMBLE; 0 weighs all alike"""
    episodes: int = 50
    """the same for every cell"""
    num_envs: int = 50
    out: Path = Path("runs/latency")
    """folder for latency.json and latency.html"""
    token_file: Path | None = None
    """file with the word that the server wants"""
    json: bool = False
    """print JSON"""

    def __post_init__(self) -> None:
        at_least(1, self, "episodes", "num_envs")
        if not self.delays or any(e < 1 for e in self.execute):
            raise UserError("give at least one of --delays, and --execute of at least 1")


def latency(argv: Sequence[str]) -> int:
    """`noisepilot latency POLICY [--delays ... --modes ...]`; returns the exit code."""
    config = parse(Latency, argv, "noisepilot latency")
    from ..deploy.runtime import Delays, PolicyError
    from ..envs import make_core
    from .deploy_verbs import check_fit
    from .latency import Grid, measure, modes_of, save
    from .latency_advice import advise
    from .latency_page import render

    try:
        policy = _player(config)
        delays = [Delays(delay, config.jitter_ms, config.drop) for delay in dict.fromkeys(config.delays)]
    except PolicyError as error:
        raise UserError(str(error)) from None
    modes = modes_of(policy, [mode.strip() for mode in config.modes.split(",") if mode.strip()])
    grid = Grid(delays, modes, config.execute or (None,), config.ensemble, config.episodes)
    ref = config.env.or_else(policy.spec.env, policy.spec.env_kwargs)
    env = make_core(ref.id, min(config.num_envs, config.episodes), **ref.kwargs)
    try:
        check_fit(policy.spec, env.spec)
        curve = measure(policy, env, grid, name=config.policy, progress=None if config.json else _say)
    finally:
        env.close()
    advice = advise(curve)
    save(curve, config.out, advice, render(curve, advice))
    print(json.dumps(curve.to_json(advice)) if config.json else "\n".join([*advice, str(config.out / "latency.html")]))
    return 0


def _player(config: Latency) -> Any:
    from ..deploy.runtime import open_policy

    if not Path(config.policy).is_dir():
        return open_policy(config.policy, token=read_token(config.token_file))
    from ..deploy.graph import exportable
    from ..deploy.in_torch import Guided, InTorch
    from ..policies.policy import Policy
    from ..policies.storage import find_policy, load_policy

    policy = exportable(load_policy(find_policy(Path(config.policy)), device="cpu"), config.policy)
    if isinstance(policy, Policy) and not policy.spec.max_prefix:
        with suppress(UserError):  # of another kind than guidance needs: it plays in the other modes
            return Guided(policy)
    return InTorch(policy)


def _say(cell: object) -> None:
    from .latency import Cell

    assert isinstance(cell, Cell)
    ledger = cell.played.ledger
    success, found = ledger.success_interval(), f"return {ledger.return_interval()}"
    if success:
        found = f"success {success}" + ("" if (ledger.success == ledger.returns).all() else f"   {found}")
    starved = f"   without a plan {100 * cell.played.starved:.0f} %" if cell.played.starved else ""
    print(f"{cell.delays.delay_ms:>6g} ms   {cell.name:<12} {found}{starved}", flush=True)

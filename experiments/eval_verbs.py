"""The verb `eval`: a policy on seeded episodes of its environment, or on held-out data without one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, at_least
from .cli import parse, take_positional
from .env_ref import EnvRef
from .serve_verb import is_deployed, read_token

if TYPE_CHECKING:
    from ..algos.black_box import Exported
    from ..algos.corrected import Corrected


@dataclass(frozen=True)
class Eval:
    """One evaluation."""

    policy: str
    """policy folder or run; exported file; or address of `noisepilot serve`, such as ws://127.0.0.1:8000"""
    env: EnvRef = field(default_factory=EnvRef)
    """empty: the environment the policy was made for"""
    episodes: int = 100
    """seeded 0, 1, 2, ...; training never uses these seeds"""
    num_envs: int = 40
    data: str = ""
    """measure the action error on these demonstrations instead"""
    out: str = ""
    """ledger to write; empty: eval/final.json of the run, nothing for a bare policy folder"""
    overlay: Path | None = None
    """adapter on top of an exported file, written by `noisepilot export` too"""
    token_file: Path | None = None
    """file with the word that the server wants"""
    json: bool = False
    """print JSON"""

    def __post_init__(self) -> None:
        at_least(1, self, "episodes", "num_envs")


def evaluate(argv: list[str]) -> int:
    """`noisepilot eval RUN [--episodes N] [--data DEMOS] [--json]`."""
    path, argv = take_positional(argv, "")
    config = parse(Eval, ["--policy", path, *argv] if path else argv, "noisepilot eval")
    if config.data and config.overlay:
        raise UserError("--data measures a policy's chunks in torch: leave --overlay out")
    found = _offline(config) if config.data else _simulated(config)
    if config.json:
        print(json.dumps(found))
    return 0


def _offline(config: Eval) -> dict[str, Any]:
    from ..datasets.chunks import Chunks
    from ..datasets.readers import load
    from ..policies.storage import load_policy
    from .evaluate_offline import evaluate_offline

    policy = load_policy(config.policy)
    episodes = load(config.data).observing(policy.spec.obs)
    policy.spec.check_data(episodes.obs_specs(), episodes.action_spec(), config.data)
    chunks = Chunks(episodes, policy.spec.horizon, policy.spec.n_obs_steps, policy.device)
    errors = evaluate_offline(policy, chunks)
    if not config.json:
        _print_table(errors.table())
    return errors.to_json()


def _simulated(config: Eval) -> dict[str, Any]:
    from ..envs import make
    from ..envs.seeds import eval_seeds
    from ..policies.matmul import use_fast_matmul
    from ..policies.storage import load_policy
    from .evaluate import evaluate as measure
    from .evaluate import of_policy

    deployed = _deployed(config)
    policy = deployed or load_policy(config.policy)
    use_fast_matmul()
    ref = config.env.or_else(policy.spec.env, policy.spec.env_kwargs)
    env = make(ref.id, min(config.num_envs, config.episodes), str(policy.device), **ref.kwargs)
    try:
        ledger = measure(policy, env, eval_seeds(config.episodes))  # type: ignore[arg-type]  # Exported's noise has 3 axes
    finally:
        env.close()
    if deployed is not None:
        name = config.policy + (f" + {config.overlay}" if config.overlay else "")
        ledger = replace(ledger, policy=name, policy_hash=deployed.digest)
    else:
        ledger = of_policy(ledger, policy, config.policy)  # type: ignore[arg-type]
    out = config.out or _default_out(config.policy)
    if out:
        ledger.save(out)
    summary = ledger.summary()
    if not config.json:
        _print_table([{"": key, "value": _words(value)} for key, value in summary.items() if value not in ("", None)])
    return summary


def _deployed(config: Eval) -> Exported | Corrected | None:
    from ..algos.corrected import deployed

    if not is_deployed(config.policy):
        if config.overlay:
            raise UserError(f"{config.overlay} belongs on top of an exported file, and {config.policy} is none")
        return None
    return deployed(config.policy, token=read_token(config.token_file), overlay=config.overlay)


def _default_out(policy: str) -> Path | None:
    # A bare policy folder is not the place for evaluations: they would be lost when it is written anew.
    run = Path(policy)
    return run / "eval" / "final.json" if (run / "metrics.jsonl").is_file() else None


def _words(value: Any) -> str:
    if isinstance(value, dict):  # an interval
        return "{mean:.4g}  [{low:.4g}, {high:.4g}]".format(**value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)

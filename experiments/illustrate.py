"""Pictures of a run's policy at work, made when a report first asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..envs.seeds import eval_seeds
from ..errors import UserError
from ..policies.policy import Policy
from ..policies.storage import SavedActor, find_policy, load_policy
from .distill import DistillRun
from .env_ref import EnvRef
from .finetune import Finetune, environment
from .pictures import record_chain, record_film, record_trajectories, save_pictures
from .run_folder import RunFolder
from .serve_verb import is_deployed

EPISODES = 40
"""trajectories drawn per policy"""
CHAINS = 6
"""noises whose denoising is drawn, for one observation"""


def illustrate(run: RunFolder) -> None:
    """Record trajectories, a film and a denoising chain of the run's policy, and of the base it started from.

    A run without an environment, or whose base is gone, gets the pictures that are left.
    """
    path = run.path / "pictures.json"
    newest = run.latest_checkpoint()
    if newest is None:
        return
    env: EnvRef = run.config.env
    if not env.id or ":" in env.id:  # a run from elsewhere must not choose what is imported here
        return
    if path.is_file() and path.stat().st_mtime > newest.stat().st_mtime:
        return
    for name, folder in _policies(run).items():
        _record(path, name, load_policy(folder), env)


def _policies(run: RunFolder) -> dict[str, Path]:
    mine = find_policy(run.path)
    if isinstance(run.config, DistillRun):
        return {"student": mine}
    if not isinstance(run.config, Finetune):
        return {"base": mine}
    if not run.config.policy or is_deployed(run.config.policy):
        return {"tuned": mine}
    try:
        return {"base": find_policy(run.config.policy), "tuned": mine}
    except UserError:
        return {"tuned": mine}


def _record(path: Path, name: str, policy: SavedActor, ref: EnvRef) -> None:
    seeds = eval_seeds(EPISODES)
    with environment(ref, EPISODES, policy) as env:
        first = env.reset(list(seeds))
        trajectories = record_trajectories(policy, env, seeds)
    with environment(ref, 1, policy) as env:
        film = record_film(policy, env, seeds[0])
    chain = _chain(policy, first) if isinstance(policy, Policy) else None
    save_pictures(path, name, trajectories=trajectories, film=film, chain=chain)


def _chain(policy: Policy, first: Mapping[str, Tensor]) -> dict[str, Any]:
    obs = {k: v[:1, None].expand(CHAINS, policy.spec.n_obs_steps, *v.shape[1:]).float() for k, v in first.items()}
    return record_chain(policy, obs, policy.noise(CHAINS, torch.Generator(policy.device).manual_seed(0)))

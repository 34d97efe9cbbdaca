"""One epoch of DPPO with pictures: `dppo/vit/ours` and `dppo/vit/every-pair` in s, and how often pictures are encoded.

DPPO's small ViT on Push-T's camera, 96 x 96 twice; five denoising steps, all trained, two minibatches. `every-pair`
is the same update ordered as in the official code: a minibatch holds any pairs of a decision and a step, and each
pair encodes its picture, for the policy and for the critic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor

from ..algos.decisions import Decisions
from ..algos.dppo import DPPO
from ..algos.onpolicy import OnPolicy
from ..algos.ppo import value_error
from ..algos.returns import Ends
from ..algos.rollout import Rollout
from ..algos.state import ActorCriticState
from ..algos.views import AT_ONCE, Views
from ..policies import Policy
from ..policies.vision import Encoder
from .limits import Limits
from .race import Effort, Row, Variant, race, ratios
from .toys import calls, make_seeing, observations

STEPS = 5


def tuning(limits: Limits, effort: Effort) -> Iterator[Row]:
    """Seconds of an update, then the observations that policy and critic encode in it."""
    decisions = min(32, effort.envs * effort.decisions)
    # Without a step of the weights, so that every update begins with the policy that acted.
    ours = DPPO(finetune_steps=STEPS, epochs=1, minibatch=decisions * STEPS // 2, actor_lr=0.0, critic_lr=0.0)
    algos = {"ours": ours, "every-pair": EveryPair(**{f.name: getattr(ours, f.name) for f in fields(DPPO)})}
    updates = {name: _update(algo, decisions) for name, algo in algos.items()}
    variants = {name: Variant(update, limits.fast_matmul) for name, (_, update) in updates.items()}
    seconds = race(variants, replace(effort, burst=1))  # a call is a large part of a second
    yield Row("dppo/vit/ours", seconds["ours"], "s", None, ratios(seconds, "ours", {"every-pair": None}))
    yield Row("dppo/vit/every-pair", seconds["every-pair"], "s")
    for name, (state, update) in updates.items():
        encoders = [m for net in (state.policy.network, state.critic) for m in net.modules() if isinstance(m, Encoder)]
        with calls(encoders[0]) as acted, calls(encoders[1]) as valued:
            update()
        yield Row(f"dppo/vit/{name}/encoded", float(sum(acted) + sum(valued)), "observations")


def _update(algo: DPPO, decisions: int) -> tuple[ActorCriticState, Callable[[], object]]:
    policy, generator = make_seeing(STEPS), torch.Generator().manual_seed(0)
    state, obs = algo.init(policy), observations(decisions, policy)
    action, extras = algo.act(state, obs, generator)
    kept, after = ({name: value[None] for name, value in values.items()} for values in (extras, obs))
    ended = torch.ones(1, decisions, dtype=torch.bool)
    rollout = Rollout(kept, after, action.mean((1, 2))[None], Ends(ended, ~ended))
    return state, partial(algo.update, state, rollout, generator)


class EveryRow(Views):
    """Encodes a decision as often as it is named."""

    def features(self, policy: Policy, rows: Tensor, encoder: Encoder | None = None) -> Tensor:
        """Row by row."""
        obs = {name: value[rows] for name, value in self.obs.items()}
        return policy.features(obs, self.draws and self.draws.rows(rows), encoder)


class EveryPair(DPPO):
    """DPPO whose pairs share nothing."""

    def minibatches(self, decisions: Decisions, generator: torch.Generator) -> Iterator[Tensor]:
        """Any pairs together."""
        return OnPolicy.minibatches(self, decisions, generator)

    def prepare(self, state: ActorCriticState, rollout: Rollout, generator: torch.Generator) -> Decisions:
        """With views that encode every row they are asked for."""
        decisions = super().prepare(state, rollout, generator)
        assert decisions.views is not None
        return replace(decisions, views=EveryRow(decisions.views.obs, decisions.views.draws))

    def scored(self, state: ActorCriticState, decisions: Decisions, rows: Tensor) -> Tensor:
        """Encoded for every step."""
        for _ in range(STEPS - 1):
            decisions.context(state.policy, rows)
        return super().scored(state, decisions, rows)

    def value_loss(self, state: ActorCriticState, decisions: Decisions, weight: Tensor) -> Tensor:
        """Of every pair."""
        rows, loss = torch.arange(len(weight)).repeat_interleave(weight.long()), weight.new_zeros(())
        for part in rows.split(AT_ONCE):
            error = value_error(decisions.values(state, part), decisions.returns[part], decisions.value[part], None)
            (self.value_coef * error.sum() / len(rows)).backward()
            loss = loss + error.detach().sum() / len(rows)
        return loss

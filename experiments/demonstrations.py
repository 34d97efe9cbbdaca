"""Recorded episodes as the transitions that off-policy methods learn from."""

from __future__ import annotations

from ..algos.replay import Experience
from ..datasets.checks import check
from ..datasets.episodes import Episodes
from ..datasets.transitions import experience
from ..errors import UserError
from ..policies.policy import ACTION
from ..policies.storage import SavedActor
from ..spec import EnvSpec


def demonstrations(episodes: Episodes, actor: SavedActor, env: EnvSpec) -> Experience:
    """Every window of as many actions as the actor executes per decision, normalised as its own, on the env's device.

    Raises:
        UserError: for episodes without rewards, or of another environment.
    """
    for fault in check(episodes, env):
        if fault.level == "error":
            raise UserError(f"the data do not fit {env.id}: {fault.key}: {fault.message}")
    n, history = actor.spec.n_action_steps, actor.spec.n_obs_steps
    return experience(episodes, lambda x: actor.normalizer.normalize(ACTION, x), n, history, env.device)

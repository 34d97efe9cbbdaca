"""Recorded episodes as the transitions that off-policy methods learn from."""

from __future__ import annotations

from ..algos.replay import Experience
from ..datasets.checks import check
from ..datasets.episodes import Episodes
from ..datasets.mix import reward_type
from ..envs.identity import known_as, rewards_of
from ..errors import UserError
from ..policies.policy import ACTION
from ..policies.storage import SavedActor
from ..spec import EnvSpec
from .transitions import experience


def demonstrations(episodes: Episodes, actor: SavedActor, env: EnvSpec) -> Experience:
    """Every window of as many actions as the actor executes per decision, normalised as its own, on the env's device.

    Raises:
        UserError: for episodes without rewards, with rewards of another kind, or of another environment.
    """
    for fault in check(episodes, env):
        if fault.level == "error":
            raise UserError(f"the data do not fit {env.id}: {fault.key}: {fault.message}")
    source = known_as(str(episodes.attrs.get("env") or env.id))
    if rewards_of(source) != rewards_of(env.id):
        raise UserError(f"the data's rewards are those of {source}, not of {env.id}: say --env {source}")
    if (recorded := reward_type(episodes)) != (wanted := env.kwargs.get("reward_type")):
        raise UserError(
            f"the data's rewards have reward_type {recorded}, those of {env.id} {wanted}: "
            "fit the data with `noisepilot data convert` and the same --env and --env-kwargs"
        )
    episodes = episodes.observing(env.obs)
    n, history = actor.spec.n_action_steps, actor.spec.n_obs_steps
    return experience(episodes, lambda x: actor.normalizer.normalize(ACTION, x), n, history, env.device)

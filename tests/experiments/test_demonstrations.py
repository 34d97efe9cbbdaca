"""Recorded episodes for off-policy methods: every window, in the actor's own units, paid as the environment pays."""

from dataclasses import replace

import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.experiments.demonstrations import demonstrations
from noisepilot.spec import EnvSpec

from ..datasets.sets import make
from ..policies.toys import tiny


def test_actions_are_normalised_as_the_actor_s():
    data, actor = make(obs=3), tiny("flow", obs={"state": 3, "goal": 2}, dtype=torch.float32)
    env = EnvSpec("Toy-v0", actor.spec.obs, actor.spec.action, 10.0, 100)
    found = demonstrations(data, actor, env)
    assert len(found) == data.num_steps
    first = torch.from_numpy(data.data["action"][:2])
    torch.testing.assert_close(found.action[0], actor.normalizer.normalize("action", first))
    assert found.obs["state"].shape == (data.num_steps, 2, 3)
    with pytest.raises(UserError, match="reward_type None, those of Toy-v0 penalty"):
        demonstrations(data, actor, replace(env, kwargs={"reward_type": "penalty"}))
    paid = replace(data, attrs={**data.attrs, "env_kwargs": {"reward_type": "penalty", "max_episode_steps": 5}})
    assert len(demonstrations(paid, actor, replace(env, kwargs={"reward_type": "penalty"}))) == data.num_steps
    dense = replace(data, attrs={**data.attrs, "env": "ToyDense-v0"})
    with pytest.raises(UserError, match="rewards are those of ToyDense-v0, not of Toy-v0: say --env ToyDense-v0"):
        demonstrations(dense, actor, env)
    with pytest.raises(UserError, match="do not fit Toy-v0: env: recorded in Car-v0, not in Toy-v0: say --env Car-v0"):
        demonstrations(replace(data, attrs={"env": "Car-v0"}), actor, env)

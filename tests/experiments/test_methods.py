"""Every method of `finetune --algo` for one small iteration: it runs, and what it saves loads and acts."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from noisepilot.algos.onpolicy import OnPolicy
from noisepilot.envs import make_core
from noisepilot.experiments.cli import main
from noisepilot.experiments.env_ref import EnvRef
from noisepilot.experiments.finetune import Finetune, finetune
from noisepilot.experiments.methods import METHODS, name_of
from noisepilot.experiments.recipe import Budget, get_recipe, kinds
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.policies import MLP, Policy, PolicyConfig, Sampler, load_policy, save_policy
from noisepilot.policies.storage import find_policy

from .runs import metrics

ENV = EnvRef("Hopper-v5", {"max_episode_steps": 12})
SMALL = kinds(PolicyConfig(network=MLP((16, 16, 16)), sampler=Sampler(steps=4, eta=0.0)))
BASES = {"reinflow": "flow", "reinflow-official": "flow", "fql": "flow", "ofql": "meanflow"}


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_called_as_on_the_command_line(name):
    """Also when some of them were changed."""
    settings = METHODS[name].settings
    assert name_of(settings) == name
    assert name_of(replace(settings, gamma=0.5)) == name


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of untrained policies by kind."""
    core = make_core(ENV.id, **ENV.kwargs)
    core.close()
    folder, spec = tmp_path_factory.mktemp("bases"), core.spec
    for kind, config in SMALL.items():
        torch.manual_seed(0)
        policy = Policy(config, config.spec_for(spec))
        for name, array in {**spec.obs, "action": spec.action}.items():
            policy.normalizer.fit(name, -np.ones(array.shape), np.ones(array.shape))
        save_policy(policy, folder / kind)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_every_method(name, tmp_path, bases):
    settings = METHODS[name].settings
    tiny = {"batch": 8, "warmup": 4, "utd": 0.5, "train_every": 2, "finetune_steps": 2, "epochs": 2, "minibatch": 16}
    tiny |= {"act_after": 1}
    known = {field.name for field in fields(settings)}
    settings = replace(settings, **{key: value for key, value in tiny.items() if key in known})
    budget = Budget(num_envs=2, decisions=8, iterations=2, eval_every=0, eval_episodes=2)
    base, out = str(bases / BASES.get(name, "diffusion")), str(tmp_path / "run")
    finetune(Finetune(base, out, ENV, settings, budget))
    last = metrics(out)[-1]
    assert last["iteration"] == 2
    assert last["grad_steps"] > 0
    assert last["env_steps"] > 0
    actor = load_policy(find_policy(out))
    assert main(["eval", out, "--episodes", "2"]) == 0
    ledgers = RunFolder.open(out).ledgers()
    assert ledgers["final"].policy_hash == ledgers[f"{last['env_steps']:09d}"].policy_hash == actor.hash()
    assert ("base" in ledgers) is not isinstance(settings, OnPolicy), "on-policy methods begin as their base"


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_of_policy_acts(kind, bases):
    policy = load_policy(bases / kind)
    action = policy.act({"state": torch.zeros(3, 1, 11)}, generator=torch.Generator().manual_seed(0))
    assert action.shape == (3, 4, 3)
    assert torch.isfinite(action).all()


def test_recipes_have_every_method_and_kind():
    recipe = get_recipe("hopper")
    for name, method in METHODS.items():
        assert recipe.algo(name) == recipe.algos.get(name, method.settings)
        assert recipe.kind(method.fresh).horizon == recipe.policy.horizon
    on, off = recipe.budget_for("dppo"), recipe.budget_for("sac")
    assert on == recipe.budget
    assert off.num_envs < on.num_envs
    assert off.iterations > on.iterations

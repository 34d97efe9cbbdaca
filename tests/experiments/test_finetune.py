"""Fine-tuning: what a run writes, and every recipe's algorithms for one small iteration."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from noisepilot.algos.onpolicy import OnPolicy
from noisepilot.envs import list_envs, make_core
from noisepilot.envs.registry import TABLE
from noisepilot.errors import UserError
from noisepilot.experiments.cli import main
from noisepilot.experiments.env_ref import EnvRef
from noisepilot.experiments.finetune import Finetune, finetune
from noisepilot.experiments.recipe import Budget, get_recipe, recipes
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.policies import Policy, load_policy, save_policy
from noisepilot.policies.storage import find_policy

from .runs import FINETUNE, metrics, pretrained

SHORT = {"max_episode_steps": 12}
TINY = Budget(num_envs=2, decisions=3, iterations=1, eval_every=0, eval_episodes=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("base"))


def test_what_a_run_holds(tmp_path, base):
    out = str(tmp_path / "run")
    before = find_policy(base).joinpath("model.safetensors").read_bytes()
    assert main(["finetune", "hopper", "--policy", base, "--out", out, *FINETUNE]) == 0
    assert find_policy(base).joinpath("model.safetensors").read_bytes() == before
    run, lines = RunFolder.open(out), metrics(out)
    assert [line["iteration"] for line in lines] == list(range(7))
    assert [line["iteration"] for line in lines if "eval/mean_reward" in line] == [0, 2, 4, 6]
    steps = [line["env_steps"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] <= 6 * 8 * 4 * 4
    assert [p.name for p in run.checkpoints()] == [f"{step:09d}" for step in steps[1:]]
    assert list(run.ledgers()) == [f"{line['env_steps']:09d}" for line in lines if "eval/mean_reward" in line]
    assert {"rollout/ep_rew_mean", "train/approx_kl", "train/value_loss"} <= lines[-1].keys()
    assert load_policy(find_policy(out)).config.tuned_from > 0


def test_several_seeds_make_several_runs(tmp_path, base):
    argv = ["finetune", "hopper", "--policy", base, *FINETUNE, "--budget.iterations", "1"]
    assert main([*argv, "--out", str(tmp_path / "runs"), "--seeds", "2"]) == 0
    assert (tmp_path / "runs" / "report.html").is_file()
    runs = [RunFolder.open(p) for p in sorted((tmp_path / "runs").glob("seed*"))]
    assert [(run.path.name, run.config.seed) for run in runs] == [("seed0", 0), ("seed1", 1)]
    assert metrics(runs[0].path)[1] != metrics(runs[1].path)[1]


def fresh_policy(recipe, folder: Path) -> str:
    core = make_core(recipe.env.id, **recipe.env.kwargs)
    core.close()
    spec = core.spec
    policy = Policy(recipe.policy, recipe.policy.spec_for(spec))
    for name, array in {**policy.flat_obs, "action": spec.action}.items():
        policy.normalizer.fit(name, -np.ones(array.shape), np.ones(array.shape))
    return str(save_policy(policy, folder))


SHORT_LEARNING = {"warmup": 1, "batch": 8, "utd": 1.0, "train_every": 1, "act_after": 0}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe(name, tmp_path):
    recipe = get_recipe(name)
    if not recipe.env.id:
        return
    if recipe.env.id not in TABLE and recipe.env.id not in list_envs():
        pytest.skip(f"the simulator of {recipe.env.id} is absent")
    try:
        policy = fresh_policy(recipe, tmp_path / "policy")
    except UserError as error:
        if "noisepilot envs install" not in str(error):
            raise
        pytest.skip(str(error))
    if recipe.env.id not in TABLE:
        return  # the simulator runs in workers and may be slow
    env = EnvRef(recipe.env.id, {**recipe.env.kwargs, **SHORT})
    for algo in recipe.algos:
        budget = replace(TINY, reset_each_iteration=recipe.budget.reset_each_iteration)
        settings = recipe.algo(algo)
        if not isinstance(settings, OnPolicy):
            known = {f.name for f in fields(settings)}
            settings = replace(settings, **{k: v for k, v in SHORT_LEARNING.items() if k in known})
        run = finetune(Finetune(policy, str(tmp_path / algo), env, settings, budget))
        assert metrics(run.path)[-1]["iteration"] == 1
        assert run.latest_checkpoint() is not None

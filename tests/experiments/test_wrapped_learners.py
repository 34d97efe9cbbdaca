"""Methods that put a frozen policy into the environment, in the real loops: they run, and resume bit-equal."""

import copy

import pytest
import torch

from noisepilot.algos.decorator import PolicyDecorator
from noisepilot.algos.dsrl import DSRL, DSRLSAC
from noisepilot.algos.resip import ResiP
from noisepilot.experiments.offpolicy import OffPolicyLearner
from noisepilot.experiments.onpolicy import OnPolicyLearner
from noisepilot.experiments.recipe import Budget
from noisepilot.experiments.stepper import TimedEnv
from noisepilot.policies.critic import QMLP
from noisepilot.policies.gaussian import GaussianMLP
from noisepilot.policies.normal import NormalMLP, ValueMLP

from ..algos.toys_wrapped import base, line

SMALL = {"actor": GaussianMLP((8,)), "critic": QMLP((8,)), "batch": 16, "warmup": 12, "train_every": 1, "utd": 1.0}
ALGOS = {
    "dsrl": DSRL(**SMALL),
    "dsrl_sac": DSRLSAC(**SMALL),
    "decorator": PolicyDecorator(**SMALL, explore_steps=10),
    "resip": ResiP(network=NormalMLP((8,)), critic=ValueMLP((8,)), epochs=2, minibatch=8),
}
BUDGET = Budget(num_envs=3, decisions=8, iterations=3)


def learner(name: str):
    torch.manual_seed(0)
    algo, policy, env = ALGOS[name], base("ddpm", steps=3), TimedEnv(line())
    if isinstance(algo, ResiP):
        return OnPolicyLearner(algo, policy, env, BUDGET, 0)
    return OffPolicyLearner(algo, policy, env, BUDGET, 0)


@pytest.mark.parametrize("name", ALGOS)
def test_it_runs_and_resumes_bit_equal(name):
    one = learner(name)
    one.audit(base("ddpm", steps=3))
    one.iterate()
    kept, steps = copy.deepcopy(one.tree()), one.env_steps
    one.iterate()
    assert one.env_steps > steps
    assert one.grad_steps > 0
    two = learner(name)
    two.iterate()
    two.iterate()
    two.load(kept)
    two.iterate()
    assert two.actor.hash() == one.actor.hash()
    assert two.env_steps == one.env_steps

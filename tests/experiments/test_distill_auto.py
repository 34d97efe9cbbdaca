"""Distillation by result: candidates at equal budgets, the rule that keeps one, and what lies in the run."""

import json
from dataclasses import replace
from shlex import split
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from noisepilot.algos.distill import METHODS
from noisepilot.envs.core import Step
from noisepilot.experiments.cli import main
from noisepilot.experiments.compare import Difference
from noisepilot.experiments.distill_auto import AutoDistill, _plans
from noisepilot.experiments.distill_choice import Choice, Measured
from noisepilot.experiments.ledger import Ledger
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.experiments.smoothness import SeamEnv, milliseconds
from noisepilot.experiments.statistics import Interval
from noisepilot.policies import load_policy

from ..policies.toys import tiny
from .runs import metrics, pretrained

FIT = split("--distill.fit.grad-steps 6 --distill.fit.batch 16 --distill.decisions 64 --eval-episodes 2")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("teacher"))


def auto(teacher, out, *options):
    return main(["distill", "hopper", "--auto", "--policy", teacher, "--out", str(out), *FIT, *options])


def test_every_method_is_a_candidate_that_fits_its_teacher(teacher):
    config = AutoDistill(teacher, "nowhere")
    assert config.names == list(METHODS)
    plans, left_out = _plans(config, load_policy(teacher))
    assert {name: plan.distill.method for name, plan in plans.items()} == METHODS
    assert {plan.distill.fit.grad_steps for plan in plans.values()} == {config.distill.fit.grad_steps}
    plans, left_out = _plans(config, load_policy(teacher).split(2))
    assert list(left_out) == ["onedp"]
    assert "onedp" not in plans


def test_every_candidate_is_measured_and_one_is_kept(tmp_path, teacher, capsys):
    names = ["regression", "meanflow", "ctm:2"]
    assert auto(teacher, tmp_path / "run", "--candidates", ",".join(names)) == 0
    printed = capsys.readouterr().out
    run = RunFolder.open(tmp_path / "run")
    found = json.loads((run.path / "candidates.json").read_text())
    assert list(found["candidates"]) == names
    assert found["left_out"] == {}
    assert all(name in printed for name in [*names, "teacher", found["why"], "seam jerk"])
    kept = RunFolder.open(run.path / "candidates" / found["kept"].replace(":", "-"))
    assert load_policy(run.path).hash() == load_policy(kept.path).hash()
    assert metrics(run.path) == metrics(kept.path)
    ledgers = run.ledgers()
    assert list(ledgers) == ["student", "teacher"]
    assert ledgers["student"].seed.tolist() == ledgers["teacher"].seed.tolist() == [0, 1]
    for name in names:
        loser = RunFolder.open(run.path / "candidates" / name.replace(":", "-"))
        numbers = found["candidates"][name]
        assert numbers["policy_hash"] == load_policy(loser.path).hash() == loser.ledgers()["student"].policy_hash
        assert numbers["grad_steps"] == 6
        assert numbers["score"] == pytest.approx(loser.ledgers()["student"].returns.mean())
        assert numbers["ms_per_decision"] > 0


def test_seconds_become_gradient_steps_of_named_candidates(tmp_path, teacher):
    assert auto(teacher, tmp_path / "run", "--candidates", "reflow:4,regression", "--budget", "wall=0.2") == 0
    found = json.loads((tmp_path / "run" / "candidates.json").read_text())["candidates"]
    assert list(found) == ["reflow:4", "regression"]
    assert all(numbers["grad_steps"] >= 2 for numbers in found.values())
    assert load_policy(tmp_path / "run" / "candidates" / "reflow-4").config.sampler.steps == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--candidates", "reflw"], "did you mean 'reflow'?"),
        (["--candidates", "reflow,reflow"], "name each once"),
        (["--candidates", "onedp:2"], "onedp makes students of one step"),
        (["--candidates", "ctm:3"], "ctm:3 cannot be a candidate: steps 3 must divide the teacher's 4"),
        (["--candidates", "shortcut:x"], "shortcut:2"),
        (["--budget", "hours=2"], "must be grad_steps=N or wall=SECONDS"),
        (["--budget", "grad_steps=1"], "grad_steps must be at least 2"),
        (["--distill.method", "reflow"], "say --candidates reflow"),
        (["--eval-episodes", "1"], "eval_episodes must be at least 2"),
    ],
)
def test_refusals_leave_nothing(tmp_path, teacher, capsys, options, words):
    assert auto(teacher, tmp_path / "run", *options) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def measured(name, low, ms, jerk, *, score=0.5, margin=0.05):
    nothing = np.zeros(2)
    ledger = Ledger("toy", np.arange(2), nothing, np.ones(2, int), nothing, nothing, nothing)
    return Measured(name, ledger, ms, jerk, Difference(0.5, score, Interval(low, low, 0.1), 1.0), margin)


def test_the_fastest_of_the_eligible_is_kept_and_the_smoothest_of_those_as_fast():
    slow, fast = measured("slow", -0.01, 2.0, 0.1), measured("fast", -0.04, 1.0, 0.4)
    smooth, bad = measured("smooth", -0.02, 1.05, 0.3), measured("bad", -0.06, 0.5, 0.0, score=0.6)
    choice = Choice(measured("teacher", 0.0, 9.0, 0.1), [slow, fast, smooth, bad], {})
    assert choice.winner is smooth
    assert "kept smooth: the fastest, then smoothest, of 3" in choice.sentence
    assert replace(choice, students=[slow, fast, bad]).winner is fast
    none = replace(choice, students=[bad, measured("worse", -0.5, 0.1, 0.0, score=0.1)])
    assert none.winner is bad
    assert "nobody is shown to stay within 5 points of success of the teacher: kept bad" in none.sentence
    assert [row[-1] for row in choice.table()[1]] == ["", "yes", "yes", "yes, kept", "no"]


class Still:
    """Two slots in which nothing happens; `valid` is what a chunk executes."""

    def __init__(self):
        self.spec, self.num_envs, self.valid = SimpleNamespace(device="cpu"), 2, torch.ones(2, 3, dtype=torch.bool)

    def reset(self, seeds, slots=None):
        return {"state": torch.zeros(2, 3)}

    def step(self, action):
        return Step({}, torch.zeros(2, 3), ~self.valid, ~self.valid, self.valid, {})


def test_jerk_is_that_of_windows_across_a_border_of_one_episode():
    policy = tiny(action_dim=1)
    env = Still()
    seams = SeamEnv(env, policy)
    seams.reset([0, 1])
    half = policy.normalizer.half_action.item()
    played = np.random.default_rng(0).normal(size=(2, 9))

    def play(chunk):
        seams.step(torch.from_numpy(played[:, 3 * chunk : 3 * chunk + 3, None]))

    play(0)
    assert np.isnan(seams.jerk)  # no border yet
    play(1)
    third = np.abs(np.diff(played, 3))[:, :3]  # windows that begin at 0, 1, 2: all span the border between 2 and 3
    assert seams.jerk == pytest.approx(third.mean() / (2 * half))
    seams.reset([2], [1])  # what the other slot does next follows nothing
    play(2)
    both = [*third.ravel(), *np.abs(np.diff(played[0], 3))[3:6]]
    assert seams.jerk == pytest.approx(np.mean(both) / (2 * half))
    env.valid = torch.tensor([[True, False, False], [False] * 3])  # the first ends, the second idles
    before = seams.windows
    play(0)
    assert seams.windows == before + 1


def test_more_steps_take_longer():
    policies = {name: tiny("flow", steps=steps, dtype=torch.float32) for name, steps in (("slow", 60), ("fast", 1))}
    found = milliseconds(policies, Still(), 0)
    assert found["slow"] > found["fast"] > 0

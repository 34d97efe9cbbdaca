"""A bake-off: equal budgets, the same episodes, what a killed one continues, and what its page says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from noisepilot.algos.dppo import DPPO
from noisepilot.algos.sac import SAC
from noisepilot.errors import UserError
from noisepilot.experiments import bakeoff as module
from noisepilot.experiments.bakeoff import Bakeoff, bakeoff
from noisepilot.experiments.bakeoff_page import words
from noisepilot.experiments.bakeoff_results import Contest, Result
from noisepilot.experiments.cli import main
from noisepilot.experiments.env_ref import EnvRef
from noisepilot.experiments.ledger import Ledger
from noisepilot.experiments.recipe import Budget, Recipe
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.policies.critic import QMLP, CriticMLP
from noisepilot.policies.gaussian import GaussianMLP

from .runs import metrics, pretrained
from .test_report import check_page

SIZE = Budget(num_envs=4, decisions=50, iterations=1)
RECIPE = Recipe(
    env=EnvRef("Hopper-v5", {"max_episode_steps": 20}),
    algos={
        "dppo": DPPO(finetune_steps=2, minibatch=64, epochs=2, critic=CriticMLP((16, 16, 16))),
        "sac": SAC(actor=GaussianMLP((16,)), critic=QMLP((16,)), warmup=16, batch=8, utd=0.1),
    },
    budgets={"sac": SIZE},
    budget=SIZE,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("base"))


def held(config):
    """(algo, seed) -> lines of metrics."""
    folders = sorted(p.parent for p in config.glob("*/seed*/metrics.jsonl"))
    return {(p.parent.name, p.name): metrics(p) for p in folders}


def test_the_whole_line(tmp_path, base, monkeypatch):
    config = Bakeoff(base, str(tmp_path / "out"), "dppo, sac", "env_steps=320", seeds=2, eval_episodes=6)
    ran = []
    original = module.finetune

    def interrupted(run):
        if len(ran) == 2:
            ran.append("stopped")
            raise KeyboardInterrupt
        ran.append(run.out)
        return original(run)

    monkeypatch.setattr(module, "finetune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bakeoff(config, RECIPE)
    monkeypatch.setattr(module, "finetune", lambda run: ran.append(run.out) or original(run))
    page = bakeoff(config, RECIPE)
    assert len(ran) == 5, "what was whole is not run again"
    assert set(ran) - {"stopped"} == {str(tmp_path / "out" / a / f"seed{s}") for a in ("dppo", "sac") for s in (0, 1)}

    for (algo, _), lines in held(tmp_path / "out").items():
        executed = 4 if algo == "dppo" else 1
        assert 0.8 * 320 <= lines[-1]["env_steps"] <= 320
        assert lines[-1]["env_steps"] <= lines[-1]["iteration"] * 4 * 50 * executed
        assert sum("eval/mean_reward" in line for line in lines) >= module.CURVE
    ledgers = [RunFolder.open(run).ledgers() for run in ran if run != "stopped"]
    seeds = {tuple(ledger.seed.tolist()) for found in ledgers for ledger in found.values()}
    assert seeds == {tuple(range(6))}

    text = page.read_text()
    check_page(text)
    assert text.count("<svg") >= 5
    found = json.loads((tmp_path / "out" / "bakeoff.json").read_text())
    assert list(found["algorithms"]) in (["dppo", "sac"], ["sac", "dppo"])
    best, last = (found["algorithms"][name] for name in found["algorithms"])
    assert best["final"]["return"]["mean"] >= last["final"]["return"]["mean"]
    assert set(best["versus"]) == {"base"}
    assert set(last["versus"]) == {"base", "best"}
    cost = last["cost"]
    assert cost["env_s"] + cost["sampling_s"] + cost["update_s"] <= cost["wall_s"] * 1.01


def test_a_limit_of_seconds(tmp_path, base):
    page = bakeoff(Bakeoff(base, str(tmp_path / "out"), "dppo", "wall=0.5", seeds=1, eval_episodes=2), RECIPE)
    (lines,) = held(tmp_path / "out").values()
    facts = [json.loads(line) for line in (page.parent / "dppo/seed0/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] >= 1
    assert len(facts) == 2 or facts[-2]["wall_s"] < 0.5, "no iteration begins beyond the limit"
    assert "intervals over episodes; differences" in page.read_text()


def test_no_iteration_begins_that_would_pass_the_limit():
    budget = Budget(iterations=9, wall_s=10.0)
    assert [budget.spent(*done) for done in ((0, 0.0), (3, 7.4), (3, 7.6), (9, 1.0))] == [False, False, True, True]


def test_a_method_that_fails_is_named(tmp_path, base):
    hot = replace(RECIPE, algos=RECIPE.algos | {"hot": replace(RECIPE.algos["sac"], critic_lr=1e30, warmup=8)})
    hot = replace(hot, budgets={"sac": SIZE, "hot": SIZE})
    page = bakeoff(Bakeoff(base, str(tmp_path / "out"), "hot,dppo", "env_steps=320", 1, 2), hot)
    found = json.loads((page.parent / "bakeoff.json").read_text())
    assert "training diverged" in found["failed"]["hot"]
    assert list(found["algorithms"]) == ["dppo"]
    assert "hot failed (seed 0: training diverged" in page.read_text()


def ledger(returns):
    n = len(returns)
    none = np.full(n, np.nan)
    return Ledger("Line", np.arange(n), np.array(returns, float), np.ones(n, int), none, np.ones(n), none)


def contest(**means):
    """Methods whose runs return their mean everywhere, plus noise that is equal for all."""
    noise = np.random.default_rng(0).normal(size=20)
    found = []
    for name, mean in sorted(means.items(), key=lambda pair: -pair[1]):
        result = Result(name, 0, ())
        vars(result)["evaluations"] = [[ledger(noise + mean)] for _ in range(2)]
        vars(result)["cost"] = dict.fromkeys(
            ("env_steps", "grad_steps", "wall_s", "env_s", "sampling_s", "update_s"), 1.0
        )
        found.append(result)
    return Contest(ledger(noise), found, {})


def test_words():
    said = words(contest(good=3.0, same=0.0, bad=-2.0))
    assert said.startswith("good is best. good earns 3.0 more return than base")
    assert "good earns 3.0 more return than same" in said
    assert "Worse than the base: bad." in said
    assert words(contest(same=0.0)).startswith("No method is shown to be better than the base; same comes first.")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algos": "dppo,sax"}, "unknown algorithm 'sax'"),
        ({"algos": "dppo,dppo"}, "must name methods, each once"),
        ({"algos": ","}, "must name methods, each once"),
        ({"budget": "steps=5"}, "--budget steps=5 must be env_steps=N or wall=SECONDS"),
        ({"budget": "wall=-1"}, "--budget wall=-1 must be env_steps=N or wall=SECONDS"),
        ({"budget": "env_steps=20"}, "too small for dppo: 5 iterations take 80"),
        ({"algos": "dppo,sac", "budget": "env_steps=160"}, "nothing would be learned: lower algo.warmup"),
        ({"algos": "dppo,ofql"}, "ofql cannot start from"),
    ],
)
def test_refusals_before_training(tmp_path, base, options, words):
    late = replace(RECIPE, algos=RECIPE.algos | {"sac": replace(RECIPE.algos["sac"], warmup=200)})
    with pytest.raises(UserError) as refused:
        bakeoff(Bakeoff(**({"policy": base, "out": str(tmp_path / "out"), "eval_episodes": 2} | options)), late)
    assert words in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_the_verb(tmp_path, capsys):
    assert main(["bakeoff", "hopper", "--out", str(tmp_path / "out")]) == 2
    assert "--policy is missing" in capsys.readouterr().err

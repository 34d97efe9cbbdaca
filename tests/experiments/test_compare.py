import json

import numpy as np
import pytest

from noisepilot.errors import UserError
from noisepilot.experiments.compare import compare
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.ledger import Ledger
from noisepilot.experiments.report_verbs import compare as compare_verb
from noisepilot.experiments.report_verbs import find_ledger
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.spec import ArraySpec

from .toys import Line, Pusher


def ledger(success, returns=None, seeds=None, **facts):
    """Made-up episodes."""
    success = np.asarray(success, dtype=float)
    n = len(success)
    returns = success if returns is None else np.asarray(returns, dtype=float)
    seeds = np.arange(n) if seeds is None else np.asarray(seeds)
    columns = {
        "length": np.ones(n, dtype=int),
        "time_s": np.ones(n),
        "goal_s": np.where(success == 1, 1.0, np.nan),
    }
    return Ledger(**({"env": "Line"} | facts), seed=seeds, returns=returns, success=success, **columns)


def test_better_success_in_words():
    a = ledger([1] * 40 + [0] * 60)
    b = ledger([1] * 60 + [0] * 40)
    found = compare(a, b)
    assert found["better"] == "b"
    assert found["success"]["difference"]["mean"] == pytest.approx(0.2)
    assert found["success"]["p"] == pytest.approx(2 * 0.5**20)
    assert found["sentence"].startswith("B succeeds 20.0 points more often than A (95 % CI ")
    assert found["sentence"].endswith("p = 2e-06, 100 paired episodes)")


def test_worse_is_said_with_a_positive_interval():
    found = compare(ledger([1] * 60 + [0] * 40), ledger([1] * 40 + [0] * 60), names=("base", "tuned"))
    assert found["better"] == "a"
    assert "tuned succeeds 20.0 points less often than base" in found["sentence"]
    low, high = (found["success"]["difference"][k] for k in ("low", "high"))
    assert low < high < 0
    assert f"CI {-100 * high:.1f}..{-100 * low:.1f}" in found["sentence"]


def test_no_difference_is_not_called_one():
    found = compare(ledger([1, 0] * 20), ledger([0, 1] * 20))
    assert found["better"] is None
    assert found["sentence"].startswith("No difference shown")


def test_returns_decide_where_success_is_unknown():
    nan, rng = np.full(50, np.nan), np.random.default_rng(0)
    returns = rng.normal(size=50)
    found = compare(ledger(nan, returns), ledger(nan, returns + rng.normal(5, 1, size=50)))
    assert "success" not in found
    assert found["better"] == "b"
    assert "more return" in found["sentence"]


def test_pairs_follow_seeds_not_rows():
    a = ledger([1, 0, 0], seeds=[5, 6, 7])
    b = ledger([0, 0, 1], seeds=[7, 6, 5])
    assert compare(a, b)["success"]["difference"] == {"mean": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"env": "Circle"}, "differ in env"),
        ({"env_kwargs": {"reset_target": True}}, "env_kwargs"),
        ({"seeds": [0, 1, 2, 9]}, "different seeds"),
    ],
)
def test_unpaired_ledgers_are_refused(other, message):
    with pytest.raises(UserError, match=message):
        compare(ledger([1, 0, 1, 0]), ledger([1, 0, 1, 0], **other))


def test_a_stronger_push_is_found_better(tmp_path, capsys):
    for name, drift in (("a", 0.03), ("b", 0.06)):
        evaluate(Pusher(drift), Line(50), range(100)).save(tmp_path / f"{name}.json")
    arguments = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert compare_verb(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("B succeeds")
    assert compare_verb([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["better"] == "b"


def test_a_run_folder_stands_for_its_newest_ledger(tmp_path):
    run = RunFolder.create(tmp_path / "run", ArraySpec((1,)))
    with pytest.raises(UserError, match="run eval first"):
        find_ledger(run.path)
    ledger([1, 0]).save(run.eval_path("base"))
    assert len(find_ledger(run.path)) == 2
    ledger([1, 0]).save(run.eval_path("tuned"))
    with pytest.raises(UserError, match=r"choose one of .*base\.json"):
        find_ledger(run.path)
    for episodes, name in ((3, "000000100"), (4, "000000200")):
        ledger([1] * episodes).save(run.eval_path(name))
        assert len(find_ledger(run.path)) == episodes
    ledger([1] * 5).save(run.eval_path("final"))
    assert len(find_ledger(run.path)) == 5

import json

import numpy as np
import pytest
import torch

from noisepilot.envs.core import Step
from noisepilot.envs.history import History
from noisepilot.envs.seeds import noise_generator
from noisepilot.errors import UserError
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.evaluate_offline import evaluate_offline
from noisepilot.experiments.ledger import COLUMNS, Ledger

from .toys import SPEC, Line, Pusher

SEEDS = range(1000, 1020)


def by_hand(seed, actor):
    """One episode, step by step, without any of the machinery."""
    rng, x = noise_generator(seed), np.random.default_rng(seed).uniform(-1, 0)
    seen, length = [x] * actor.spec.n_obs_steps, 0
    while True:
        noise = torch.from_numpy(rng.standard_normal(actor.noise_shape, dtype=np.float32))
        obs = torch.tensor(seen[-actor.spec.n_obs_steps :], dtype=torch.float32)[None, :, None]
        for push in actor.act({"state": obs}, noise[None])[0, : actor.spec.n_action_steps, 0].double():
            x, length = x + float(push), length + 1
            seen.append(x)
            if x >= 1 or length == 50:
                return length, float(x >= 1)


@pytest.mark.parametrize("num_envs", [1, 7, 64])
def test_ledger_does_not_depend_on_slots_and_is_right(num_envs):
    actor = Pusher()
    ledger = evaluate(actor, Line(num_envs), SEEDS)
    expected = np.array([by_hand(seed, actor) for seed in SEEDS])
    assert 0 < expected[:, 1].sum() < len(SEEDS), "the toy must both succeed and fail"
    np.testing.assert_array_equal(ledger.seed, SEEDS)
    np.testing.assert_array_equal(ledger.length, expected[:, 0])
    np.testing.assert_array_equal(ledger.success, expected[:, 1])
    np.testing.assert_allclose(ledger.returns, -0.1 * ledger.length, rtol=1e-12)
    np.testing.assert_allclose(ledger.time_s, ledger.length / 10)
    np.testing.assert_array_equal(np.isnan(ledger.goal_s), ledger.success == 0)
    np.testing.assert_allclose(ledger.goal_s[ledger.success == 1], ledger.time_s[ledger.success == 1])


def test_order_of_seeds_does_not_matter():
    forwards = evaluate(Pusher(), Line(3), SEEDS)
    backwards = evaluate(Pusher(), Line(3), reversed(SEEDS)).in_seed_order()
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(forwards, name), getattr(backwards, name))


def test_progress_and_fewer_action_steps():
    calls = []
    ledger = evaluate(Pusher(), Line(4), SEEDS, n_action_steps=1, progress=lambda *a: calls.append(a))
    assert calls[-1] == (20, 20)
    assert ledger.n_action_steps == 1
    assert calls == sorted(calls)


@pytest.mark.parametrize(
    ("seeds", "options", "message"),
    [([], {}, "no seeds"), ([1, 1], {}, "twice"), ([1], {"n_action_steps": 9}, "horizon 4")],
)
def test_bad_input(seeds, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(Pusher(), Line(1), seeds, **options)


def test_another_environment_is_refused():
    actor = Pusher()
    object.__setattr__(actor.spec, "obs", {"image": SPEC.obs["state"]})
    with pytest.raises(UserError, match="observations"):
        evaluate(actor, Line(1), [1])


def test_ledger_round_trip(tmp_path):
    ledger = evaluate(Pusher(), Line(2), SEEDS)
    ledger.save(tmp_path / "a.json")
    again = Ledger.load(tmp_path / "a.json")
    assert again.summary() == ledger.summary()
    assert again.reference == SPEC.reference
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(again, name), getattr(ledger, name))
    json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)  # no NaN literals


def test_summary_numbers():
    ledger = evaluate(Pusher(), Line(2), SEEDS)
    summary = ledger.summary()
    assert summary["success"]["mean"] == ledger.success.mean()
    assert summary["normalised_score"]["mean"] == pytest.approx(100 * (ledger.returns.mean() + 10) / 10)
    assert summary["time_to_goal_s"]["mean"] == pytest.approx(ledger.time_s[ledger.success == 1].mean())
    assert set(ledger.metrics()) == {
        "eval/mean_ep_length",
        *(f"eval/{k}{e}" for k in ("mean_reward", "success_rate") for e in ("", "_low", "_high")),
    }


@pytest.mark.parametrize(("text", "message"), [(None, "not exist"), ("{", "not JSON"), ("{}", "no evaluation")])
def test_foreign_files_are_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        Ledger.load(path)


def chunk(values, valid):
    """A Step of which only observations and validity matter."""
    values, valid = torch.tensor(values, dtype=torch.float64), torch.tensor(valid)
    no = torch.zeros_like(valid)
    return Step({"x": values}, torch.zeros(valid.shape), no, no, valid, {})


def test_history_shifts_by_what_was_executed():
    history = History(3)
    history.reset({"x": torch.tensor([1.0, 10.0])})
    history.push_chunk(chunk([[2.0, 3.0], [11.0, 11.0]], [[True, True], [True, False]]))
    assert history.obs["x"].tolist() == [[1, 2, 3], [10, 10, 11]]
    history.push_chunk(chunk([[4.0, 5.0], [11.0, 11.0]], [[True, True], [False, False]]))
    assert history.obs["x"].tolist() == [[3, 4, 5], [10, 10, 11]]
    before = history.obs["x"]
    history.reset({"x": torch.tensor([7.0])}, slots=[1])
    assert history.obs["x"].tolist() == [[3, 4, 5], [7, 7, 7]]
    assert before.tolist() == [[3, 4, 5], [10, 10, 11]]
    assert history.obs["x"].dtype == torch.float32


class Windows:
    def __init__(self, action, obs=None):
        self.action, self.obs = action, obs

    def __len__(self):
        return len(self.action)

    def batch(self, indices):
        return Windows(self.action[indices], {"state": torch.zeros(len(indices), 2, 1)})


def test_offline_errors():
    actor = Pusher()
    actor.act = lambda obs, noise=None, generator=None: torch.zeros(len(obs["state"]), 4, 1)
    action = torch.randn(600, 4, 1, generator=torch.Generator().manual_seed(0))
    errors = evaluate_offline(actor, Windows(action), batch=128)
    np.testing.assert_allclose(errors.absolute, action.double().abs().mean(0), rtol=1e-6)
    np.testing.assert_allclose(errors.normalised, 1, atol=0.1)  # always saying the mean
    (row,) = errors.table()
    assert row["dimension"] == "push"
    assert errors.to_json()["windows"] == 600
    with pytest.raises(UserError, match="horizon"):
        evaluate_offline(actor, Windows(action[:, :2]))

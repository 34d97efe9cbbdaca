"""Foreign environments in worker processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time

import gymnasium as gym
import numpy as np
import pytest
import torch

from noisepilot.datasets.readers import load
from noisepilot.envs import make_core
from noisepilot.envs.remote import LIVES
from noisepilot.envs.vector import TensorEnv
from noisepilot.envs.wire import Message, receive, send
from noisepilot.errors import UserError
from noisepilot.experiments.collect import collect
from noisepilot.experiments.controllers import Uniform
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.offpolicy import _experience
from noisepilot.experiments.stepper import EpisodeStats, Stepper
from noisepilot.spec import ArraySpec, PolicySpec

from .helpers import actions, check_against

STRANGE = """
import os, sys
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

print("noise on standard output must not disturb the messages")

class Strange(gym.Env):
    signals = ("height",)
    control_hz = 25
    action_space = Box(-1, 1, (2,), np.float32)
    image = Box(0, 255, (4, 4, 3), np.uint8)
    observation_space = Dict(a=Box(-9, 9, (3,), np.float32), b=Dict(image=image))

    def __init__(self, fault="", size=1):
        self.fault, self.count, self.drift = fault, 0, 0.0
        if fault == "discrete":
            self.observation_space = Dict(a=Discrete(3))

    def see(self):
        return {"a": np.full(3, self.count + self.drift), "b": {"image": np.full((4, 4, 3), self.count)}}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        self.drift = float(np.random.rand()) if self.fault == "chance" else 0.0
        return self.see(), {}

    def step(self, action):
        self.count += 1
        if self.count == 3 and self.fault == "raise":
            raise RuntimeError("gripper lost\\nsecond line")
        if self.count == 3 and self.fault == "die":
            sys.stderr.write("driver: fatal fault\\n\\n")
            sys.stderr.flush()
            os._exit(7)
        info = {"is_success": self.count == 5, "height": 0.1 * self.count}
        return self.see(), float(action.sum()), self.count == 5, False, info

make = Strange
limited = lambda **kwargs: gym.wrappers.TimeLimit(Strange(**kwargs), 4)
"""


@pytest.fixture
def strange(tmp_path, monkeypatch):
    (tmp_path / "strange_envs.py").write_text(textwrap.dedent(STRANGE))
    monkeypatch.syspath_prepend(tmp_path)

    def open_core(num_envs: int = 3, fault: str = "", **kwargs):
        return make_core("strange_envs:make", num_envs, fault=fault, max_episode_steps=20, **kwargs)

    return open_core


@pytest.mark.parametrize("kwargs", [{}, {"g": 3.0, "max_episode_steps": 7}])
def test_equals_gymnasium_in_process(kwargs):
    core = make_core("Pendulum-v1", 3, **kwargs)
    chunks = actions(core, 3, 4).astype(np.float32)
    check_against(core, lambda: gym.make("Pendulum-v1", **kwargs), range(3), chunks)
    assert core.spec.control_hz == pytest.approx(20)
    core.close()


def test_a_wrapper_s_time_limit_is_found(strange):
    core = make_core("strange_envs:limited", 1)
    assert core.spec.max_steps == 4
    core.reset([0])
    assert core.step(np.zeros((1, 5, 2))).truncated.tolist() == [[False, False, False, True, False]]
    core.close()


def test_factory_dictionaries_and_signals(strange):
    core = strange()
    assert {k: v.shape for k, v in core.spec.obs.items()} == {"a": (3,), "b.image": (4, 4, 3)}
    assert core.spec.signals == ("success", "height")
    assert core.spec.control_hz == 25
    obs = core.reset(range(3))
    assert obs["b.image"].dtype == np.uint8
    assert obs["a"].dtype == np.float32
    step = core.step(np.full((3, 8, 2), 0.5))
    assert step.valid.sum(1).tolist() == [5, 5, 5]
    assert step.signals["success"].sum(1).tolist() == [1, 1, 1]
    np.testing.assert_allclose(step.signals["height"][0], [0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0], atol=1e-12)
    assert step.obs["b.image"][:, :, 0, 0, 0].tolist() == [[1, 2, 3, 4, 5, 5, 5, 5]] * 3
    core.reset([5], [2])
    step = core.step(np.full((3, 2, 2), 0.5))
    assert step.reward.tolist() == [[0, 0], [0, 0], [1, 1]]
    assert not core.step(np.zeros((3, 6, 2))).valid[:, 4].any()
    assert not core.step(np.zeros((3, 1, 2))).valid.any()
    core.close()


def test_state_is_replayed():
    core = make_core("Pendulum-v1", 3)
    core.reset(range(3))
    chunks = actions(core, 3, 4)
    core.step(chunks[0])
    state = core.get_state()
    once = core.step(chunks[1])
    core.step(chunks[2])
    core.set_state({k: v[[2, 0]] for k, v in state.items()}, [0, 2])
    again = core.step(chunks[1][[2, 1, 0]])
    np.testing.assert_array_equal(again.obs["state"][[0, 2]], once.obs["state"][[2, 0]])
    np.testing.assert_array_equal(core.get_state()["length"], [8, 16, 8])
    core.close()


def test_chance_is_named(strange):
    core = strange(fault="chance")
    core.reset(range(3))
    state = core.get_state()
    with pytest.raises(UserError, match="strange_envs:make is not deterministic"):
        core.set_state(state)
    with pytest.raises(UserError, match="not from a given state"):
        core.reset([0], [0], state)
    core.close()


def test_a_fault_is_one_line_and_ends_all_workers(strange):
    core = strange(fault="raise")
    core.reset(range(3))
    with pytest.raises(UserError, match=r"strange_envs:make: RuntimeError: gripper lost$"):
        core.step(np.zeros((3, 4, 2)))
    assert all(process.popen.poll() is not None for process in core.processes)
    core.close()


def test_a_worker_that_always_dies_is_a_fault(strange, capsys):
    core = strange(fault="die")
    words = "strange_envs:make: a worker process ended with code 7: driver: fatal fault"
    for _ in range(LIVES):
        core.reset(range(3))
        step = core.step(np.zeros((3, 4, 2)))
        assert step.void.all()
        assert step.ended.all()
        assert not step.valid.any()
        assert not step.reward.any()
    assert core.voided == 3 * LIVES
    assert f"{words}: started anew, " in capsys.readouterr().err
    core.reset(range(3))
    with pytest.raises(UserError, match=f"{words}$"):
        core.step(np.zeros((3, 4, 2)))
    assert all(process.popen.poll() is not None for process in core.processes)


def kill(core, slot):
    """Kill the worker of a slot, and wait until it is gone."""
    popen = core.processes[core.owner[slot]].popen
    os.kill(popen.pid, signal.SIGKILL)
    popen.wait()


def test_the_slots_of_other_workers_go_on(strange, monkeypatch):
    monkeypatch.setattr("noisepilot.envs.remote.cores", lambda: 2)
    core = strange(4)  # slots 0 and 1, 2 and 3
    core.reset(range(4))
    core.step(np.full((4, 1, 2), 0.5))
    kill(core, 2)
    step = core.step(np.full((4, 2, 2), 0.5))
    assert step.void.tolist() == [False, False, True, True]
    assert step.valid.tolist() == [[True, True]] * 2 + [[False, False]] * 2
    assert step.reward.tolist() == [[1, 1]] * 2 + [[0, 0]] * 2
    np.testing.assert_array_equal(step.obs["a"][:, :, 0], [[2, 3], [2, 3], [1, 1], [1, 1]])  # where it was last seen
    assert not core.step(np.zeros((4, 1, 2))).void.any()  # said once
    core.reset([7, 8], [2, 3])
    assert core.step(np.zeros((4, 1, 2))).valid.all()
    core.reset([5, 6], [0, 1])
    kill(core, 0)
    core.reset([9], [1])  # slot 0 was running in that worker
    assert core.step(np.zeros((4, 1, 2))).void.tolist() == [True, False, False, False]
    assert core.voided == 3
    core.close()


class Assassin:
    """Environments one of whose workers is killed at given steps."""

    def __init__(self, env, core, at):
        self.env, self.core, self.at, self.count = env, core, at, 0
        self.spec, self.num_envs = env.spec, env.num_envs

    def step(self, action):
        self.count += 1
        if self.count in self.at:
            kill(self.core, self.count % self.num_envs)
        return self.env.step(action)

    def __getattr__(self, name):
        return getattr(self.env, name)


class Push:
    """An actor that says how hard it was told to push by its noise."""

    spec = PolicySpec({"state": ArraySpec((3,))}, ArraySpec((1,)), 2, 2)
    noise_shape = (1, 2, 1)

    def act(self, obs, noise, generator=None):
        return noise[:, 0]


def test_an_evaluation_runs_lost_episodes_again():
    """With the same seeds and noise: the record is the one of workers that lived."""
    ledgers = []
    for at in ((), (3, 10, 11)):
        core = make_core("Pendulum-v1", 4, max_episode_steps=20)
        ledgers.append(evaluate(Push(), Assassin(TensorEnv(core), core, at), range(10)))
        assert core.voided == ledgers[-1].voided
        core.close()
    lived, died = ledgers
    assert died.voided >= 3
    assert lived.voided == 0
    np.testing.assert_array_equal(died.returns, lived.returns)
    np.testing.assert_array_equal(died.length, 20)
    assert died.summary()["voided"] == died.voided


def test_a_collection_records_lost_episodes_again(tmp_path):
    sets = []
    for name, at in (("lived", ()), ("died", (5, 30))):
        core = make_core("Pendulum-v1", 2, max_episode_steps=20)
        summary = collect(Uniform(core.spec), Assassin(core, core, at), 4, tmp_path / name)
        assert (summary.voided > 0) == bool(at)
        sets.append(load(tmp_path / name))
        core.close()
    np.testing.assert_array_equal(sets[0].data["action"], sets[1].data["action"])
    np.testing.assert_array_equal(sets[0].data["observation.state"], sets[1].data["observation.state"])


def test_training_goes_on_without_what_was_lost():
    core = make_core("Pendulum-v1", 4, max_episode_steps=20)
    stepper = Stepper(Assassin(TensorEnv(core), core, (3, 12)), 1, 0)
    stats, lengths = EpisodeStats(), []
    for _ in range(30):
        decision = stepper.decide(lambda obs: (torch.zeros(4, 2, 1), {"action": torch.zeros(4, 2, 1)}), stats)
        lengths += _experience(decision).length.tolist()
    assert set(stats.lengths) == {20}
    assert stats.voided == core.voided >= 2
    assert stats.metrics()["rollout/voided"] == stats.voided
    assert len(lengths) == 30 * 4 - stats.voided
    assert set(lengths) == {2}
    core.close()


@pytest.mark.parametrize(
    ("env", "kwargs", "words"),
    [
        ("CartPole-v1", {}, r"CartPole-v1 takes actions Discrete\(2\)"),
        ("Hoper-v5", {}, "did you mean 'Hopper-v5'"),
        ("no_such_module:make", {}, "No module named 'no_such_module'"),
        ("json:make", {}, "module json has no 'make'"),
        ("Pendulum-v1", {"gravity": 1}, "Pendulum-v1: TypeError.*'gravity'"),
        ("Pendulum-v1", {"g": np.float32}, "as JSON"),
        ("strange_envs:make", {"fault": "discrete", "max_episode_steps": 2}, "'a' is Discrete"),
        ("strange_envs:make", {}, "give max_episode_steps"),
    ],
)
def test_refused_by_name(strange, env, kwargs, words):
    with pytest.raises(UserError, match=words):
        make_core(env, 2, **kwargs)


def test_pictures():
    core = make_core("Pendulum-v1", 1)
    core.reset([0])
    with pytest.raises(UserError, match="render_mode='rgb_array'"):
        core.render()
    core.close()


def test_no_orphans_when_the_parent_is_killed():
    script = (
        "from noisepilot.envs import make_core; core = make_core('Pendulum-v1', 2);"
        "print(*[p.popen.pid for p in core.processes], flush=True); input()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not any(map(alive, workers))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # a zombie nobody collects is as good as gone
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def test_messages_round_trip_and_refuse_objects():
    stream = io.BytesIO()
    arrays = {
        "x": np.arange(6.0).reshape(2, 3)[:, ::2],
        "empty": np.zeros((0, 4), np.uint8),
        "flag": np.array(True),
    }
    send(stream, Message({"op": "step", "limit": float("inf")}, arrays))
    whole = stream.getvalue()
    back = receive(io.BytesIO(whole))
    assert back is not None
    assert back.head == {"op": "step", "limit": float("inf")}
    for name, array in arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
        assert back.arrays[name].dtype == array.dtype
    assert receive(io.BytesIO(whole[:-1])) is None
    assert receive(io.BytesIO(b"")) is None
    with pytest.raises(TypeError, match="cannot travel"):
        send(stream, Message({}, {"x": np.array([object()])}))

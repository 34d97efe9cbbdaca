"""Planning beside playing: which action is executed at which tick, on a simulated clock and in real time."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.deploy.runtime import Chunking, Delays, Gate, Limits, PolicyError, run_loop
from noisepilot.deploy.runtime.buffer import NONE, Buffer
from noisepilot.deploy.runtime.control import Control
from noisepilot.deploy.runtime.planner import Answer, Faults
from noisepilot.deploy.runtime.player import Player
from noisepilot.errors import UserError
from noisepilot.experiments.delayed import play_delayed
from noisepilot.experiments.deploy_verbs import mode_line
from noisepilot.experiments.run_page import words

from .clocked import Guided, Ticker, Ticks

HZ = 100.0


def simulate(policy, mode, *, delay=0, jitter=0, drop=0.0, length=40, seed=0, **chunking):
    """One episode; returns what was executed and what was counted."""
    env = Ticks(1, length)
    delays = Delays(10.0 * delay, 10.0 * jitter, drop)
    played = play_delayed(policy, env, [seed], hz=HZ, chunking=Chunking(mode, **chunking), delays=delays)
    return env.executed[seed], played


# The buffer


def test_the_newest_chunk_speaks_and_older_ones_where_it_is_not_finite():
    buffer = Buffer()
    assert buffer.at(0) == (None, NONE)
    buffer.put(np.array([[0.0], [1.0], [2.0]]), 0)
    buffer.put(np.array([[10.0], [np.nan], [30.0]]), 1)
    assert [buffer.at(t).source for t in range(5)] == [0, 1, 0, 1, NONE]
    assert buffer.ahead(0, 9).ravel().tolist() == [0.0, 10.0, 2.0, 30.0]
    buffer.put(np.array([[np.nan]]), 3)
    assert buffer.at(3).action == 30.0
    buffer.forget(4)
    assert buffer.at(3) == (None, NONE)


def test_ensembling_by_hand():
    buffer = Buffer(ensemble=0.5)
    buffer.put(np.array([[0.0], [2.0]]), 0)
    buffer.put(np.array([[8.0], [9.0]]), 1)
    w = np.exp(-0.5)  # the oldest weighs 1
    assert buffer.at(1).action == pytest.approx((2 + 8 * w) / (1 + w))
    assert (buffer.at(0).action, buffer.at(2).action) == (0.0, 9.0)
    assert buffer.at(1).source == 1


# The simulated clock


def test_sync_waits_and_async_goes_on():
    # Chunks of 8, 4 executed, 3 ticks of delay.
    sync, played = simulate(Ticker(8, 4), "sync", delay=3, length=16)
    assert sync == [0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 7, 7, 7, 11, 12]
    assert played.starved * 16 == 6
    ahead, played = simulate(Ticker(8, 4, shift=0.25), "async", delay=3, length=12)
    assert ahead == [0, 1, 2, 3, 4, 5, 6, 7.25, 8.25, 9.25, 10.25, 11.5]
    assert (played.starved, played.consumed, played.seams) == (0.0, 3, 2)


def test_a_horizon_that_does_not_last_starves():
    executed, played = simulate(Ticker(4, 1), "async", delay=3, length=12, execute=1)
    # One question at a time: that of tick 1 is answered at 4, the next one at 7. Two ticks in three have no plan.
    assert executed == [0, 1, 2, 3, 4, 4, 4, 7, 7, 7, 10, 10]
    assert played.starved == 5 / 12
    with pytest.raises(UserError, match="execute 2 is not between 1 and the horizon 4 less a delay of 3 ticks"):
        simulate(Ticker(4, 1), "async", delay=3, execute=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_action_is_that_of_the_newest_chunk_for_its_tick(data):
    horizon = data.draw(st.integers(2, 10))
    delay = data.draw(st.integers(0, horizon - 1))
    jitter = data.draw(st.integers(0, horizon - 1 - delay))
    execute = data.draw(st.integers(1, horizon - delay - jitter))
    drop, seed = data.draw(st.sampled_from([0.0, 0.3])), data.draw(st.integers(0, 99))
    policy = Ticker(horizon, 1, shift=1000.0)
    executed, _ = simulate(policy, "async", delay=delay, jitter=jitter, drop=drop, seed=seed, execute=execute)
    faults = Faults(Delays(10.0 * delay, 10.0 * jitter, drop), HZ, seed)
    frames = Faults(Delays(drop=drop), HZ, seed)
    seen = [0]
    for tick in range(1, len(executed)):
        seen.append(seen[-1] if frames.dropped() else tick)
    # Replayed in other words: one question at a time, the next one `execute` ticks after the last.
    faults.delay()  # of the first plan, which is awaited
    arrived, flying, due, last = [0], None, execute, None  # ticks of the observations that chunks were made of
    for tick, action in enumerate(executed):
        if flying is not None and flying[0] <= tick:
            arrived.append(flying[1])
            flying = None
        if flying is None and tick >= due:
            flying, due = (tick + faults.delay(), seen[tick]), tick + execute
            if flying[0] <= tick:
                arrived.append(flying[1])
                flying = None
        newest = [number for number, at in enumerate(arrived) if tick - at < horizon]
        last = newest[-1] * 1000.0 + tick if newest else last
        assert action == last


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_prefix_is_what_is_executed(data):
    horizon = data.draw(st.integers(3, 10))
    delay = data.draw(st.integers(0, horizon // 2))
    jitter = data.draw(st.integers(0, horizon - 1 - delay))
    most = data.draw(st.integers(1, horizon - 1))
    drop, seed = data.draw(st.sampled_from([0.0, 0.3])), data.draw(st.integers(0, 99))
    policy = Ticker(horizon, 1, max_prefix=most, shift=1000.0)
    executed, _ = simulate(policy, "rtc", delay=delay, jitter=jitter, drop=drop, seed=seed, length=50)
    if not drop and len(policy.calls) > 1:
        assert any(prefix is not None for _, prefix in policy.prefixes) or not any(_delays(delay, jitter, seed))
    for tick, prefix in policy.prefixes:
        if prefix is not None:
            happened = executed[tick : tick + len(prefix)]
            assert prefix.ravel().tolist()[: len(happened)] == happened


def _delays(delay, jitter, seed):
    faults = Faults(Delays(10.0 * delay, 10.0 * jitter), HZ, seed)
    return [faults.delay() for _ in range(50)]


def test_a_prefix_covers_the_largest_recent_consumption():
    policy = Ticker(16, 4, max_prefix=8, shift=1000.0)
    simulate(policy, "rtc", delay=5, length=30)
    assert [None if p is None else len(p) for _, p in policy.prefixes] == [None] + [5] * 6
    policy = Ticker(16, 4, max_prefix=3)
    simulate(policy, "rtc", delay=5, length=30)
    assert {len(p) for _, p in policy.prefixes[1:]} == {3}


def test_a_guided_policy_gets_the_rest_of_the_chunk():
    policy = Guided(horizon=8, n_action_steps=4, shift=100.0)
    executed, _ = simulate(policy, "rtc", delay=2, length=20)
    assert [len(p) for _, p in policy.prefixes[1:]] == [4] * 4
    assert set(policy.frozen) == {2}
    for tick, prefix in policy.prefixes[1:-1]:
        assert executed[tick : tick + 2] == prefix[:2].ravel().tolist()


def test_rtc_is_refused_where_the_policy_cannot():
    with pytest.raises(UserError, match="mode rtc needs a policy that continues committed actions") as error:
        simulate(Ticker(), "rtc")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="ensembling averages chunks that overlap"):
        simulate(Ticker(), "sync", ensemble=0.1)
    with pytest.raises(UserError, match="no mode 'fast': modes are sync, async, rtc"):
        simulate(Ticker(), "fast")


@pytest.mark.parametrize("mode", ["async", "rtc"])
def test_a_chunk_that_is_not_finite_never_reaches_the_robot(mode):
    policy = Ticker(16, 4, bad=(1, 3), max_prefix=4)
    executed, played = simulate(policy, mode, delay=2)
    assert executed == list(range(40))  # the older chunk lasts until the question was asked again
    assert played.refused == 2


def test_a_policy_that_raises_starves_but_does_not_stop_the_robot():
    class Dead(Ticker):
        def act(self, obs, noise=None, **words):
            if len(self.calls) > 1:
                raise PolicyError("gone")
            return super().act(obs, noise, **words)

    executed, played = simulate(Dead(8, 4), "async", delay=1, length=20)
    assert executed == [*range(12), *[11.0] * 8]
    assert played.refused > 3


def test_faults_are_those_of_the_seed():
    one, two = (Faults(Delays(30.0, 40.0, 0.5), HZ, 7) for _ in range(2))
    drawn = [(one.delay(), one.dropped()) for _ in range(200)]
    for _ in range(200):  # how many plans are made does not change which observations are lost
        two.dropped()
    assert [two.delay() for _ in range(200)] == [delay for delay, _ in drawn]
    assert {delay for delay, _ in drawn} == {4, 5, 6, 7}
    assert 70 < sum(lost for _, lost in drawn) < 130
    for wrong in ({"delay_ms": -1.0}, {"jitter_ms": float("nan")}, {"drop": 1.0}):
        with pytest.raises(PolicyError):
            Delays(**wrong)


# Real time


@pytest.mark.parametrize("mode", ["async", "rtc"])
def test_beside_control_in_real_time(mode):
    """A policy of 35 ms at 100 Hz: every action is that of its tick, whatever the planning took."""
    policy, env, traces = Ticker(64, 8, max_prefix=16, cost_s=0.035), Ticks(1, 120), []
    report = run_loop(policy, env, hz=HZ, chunking=Chunking(mode), traces=traces)
    assert env.executed[0] == list(range(120))
    assert report["starved"] == report["held"] == 0
    assert max(consumed for _, consumed, _ in traces[0]["plans"][1:]) >= 3  # control went on meanwhile
    assert report["steps"] == len(traces[0]["commands"]) == 120
    if mode == "rtc":
        assert all(len(prefix) >= 4 for _, prefix in policy.prefixes[1:])


def test_a_plan_that_fails_in_the_thread_is_counted():
    policy, env = Ticker(64, 6, bad=(2,), broken=(1,), cost_s=0.012), Ticks(1, 60)
    report = run_loop(policy, env, hz=HZ, chunking=Chunking("async"))
    assert env.executed[0] == list(range(60))
    assert (report["refused"], report["held"], report["fault"]) == (2, 0, "no plan today")
    assert "refused 2 (no plan today)" in mode_line(report)
    assert "2 chunks were of no use, the first: no plan today." in words(report)
    with pytest.raises(ValueError, match="no plan today"):
        run_loop(Ticker(broken=(0,)), Ticks(1, 9), hz=HZ, chunking=Chunking("async"))


def test_the_gate_keeps_every_command_in_every_mode():
    for mode in ("sync", "async", "rtc"):
        gate = Gate(Limits([0.0], [7.5], velocity=60.0), HZ)
        env = Ticks(1, 30)
        policy = Ticker(16, 8, max_prefix=8, cost_s=0.004)
        report = run_loop(policy, env, hz=HZ, gate=gate, chunking=Chunking(mode))
        steps = np.diff(env.executed[0])
        assert max(env.executed[0]) <= 7.5
        assert steps.max() <= 0.6 + 1e-9
        assert report["gate"]["steps"] == 30


def test_injected_delays_act_in_real_time():
    env = Ticks(1, 16)
    report = run_loop(Ticker(8, 4), env, hz=200.0, chunking=Chunking("sync"), delays=Delays(15.0))
    assert env.executed[0] == [0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 7, 7, 7, 11, 12]
    assert report["starved"] == 6
    with pytest.raises(PolicyError, match="less a delay of 3 ticks"):
        run_loop(Ticker(8, 4), env, hz=200.0, chunking=Chunking("async", execute=6), delays=Delays(15.0))


def test_how_many_are_executed_by_default():
    assert Chunking("async").resolved(Ticker(8, 8), ticks=2, injected=3).execute == 5
    assert Chunking("async").resolved(Ticker(8, 8), ticks=20).execute == 1
    assert Chunking("sync").resolved(Ticker(8, 8), ticks=20).execute == 8
    assert Chunking("async").resolved(Ticker(16, 8), ticks=3).execute == 8


def test_planning_that_has_become_slower_is_asked_sooner():
    policy = Ticker(16, 8)
    obs = {"state": np.zeros((1, 1))}
    player = Player(policy, Chunking("async", 14).resolved(policy), obs, np.random.default_rng())
    asked = []
    for tick in range(60):  # the first plan takes 2 ticks, the others take 5
        if asked and tick == asked[-1].tick + (2 if len(asked) == 1 else 5):
            player.answer(Answer(asked[-1], policy.act(obs), None, tick, 0.0), tick)
        if request := player.due(tick):
            asked.append(request)
    assert [request.tick for request in asked] == [0, 14, 28, 39, 50]  # 11 after 28 and later: the horizon of 16 less 5


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_corrects_each_action_sees_the_newest_observation(mode):
    class Corrected(Ticker):
        corrects = True

        def correct(self, obs, action):
            return action + obs["state"][-1] / 1000

    policy, env = Corrected(8, 4), Ticks(1, 20)
    play_delayed(policy, env, [0], hz=HZ, chunking=Chunking(mode), delays=Delays())
    assert env.executed[0] == pytest.approx([tick * 1.001 for tick in range(20)])
    run_loop(policy, env, hz=HZ, chunking=Chunking(mode))
    assert env.executed[0] == pytest.approx([tick * 1.001 for tick in range(20)])


def test_after_a_foreign_error_the_next_call_goes_on():
    control = Control(Ticker(8, 4, broken=(0,)), {"state": np.zeros((1, 1))}, 0, time.perf_counter, hz=HZ)
    with pytest.raises(ValueError, match="no plan today"):
        control.next_action()
    assert [control.next_action()[0] for _ in range(4)] == [0, 1, 2, 3]


def test_the_gate_stops_a_robot_whose_plans_do_not_come():
    """A horizon of 8 ends long before a plan that takes 30 ticks; a velocity would be repeated all that time."""
    gate = Gate(Limits([0.0], [1e3]), HZ, starved_s=0.05, reactions={"starved": "stop"})
    report = run_loop(Ticker(8, 4, cost_s=0.3), Ticks(1, 60), hz=HZ, gate=gate, chunking=Chunking("async"))
    assert report["starved"] > 5
    assert report["gate"]["latched"] == "starved"
    calm = Gate(Limits([0.0], [1e3]), HZ, starved_s=0.05)
    run_loop(Ticker(16, 8, cost_s=0.004), Ticks(1, 60), hz=HZ, gate=calm, chunking=Chunking("async"))
    assert "starved" not in calm.counts


def test_a_policy_that_wants_to_exit_does_not_take_the_planner_with_it():
    policy = Ticker(8, 4)
    policy.act = lambda *_, **__: (_ for _ in ()).throw(SystemExit(3))
    control = Control(policy, {"state": np.zeros((1, 1))}, 0, time.perf_counter, hz=HZ, chunking=Chunking("async", 4))
    with pytest.raises(RuntimeError, match="the policy wanted to exit"):
        control.next_action()
    control.close()

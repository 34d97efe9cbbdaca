"""The control loop, on a clock that only moves when told to."""

import gc

import pytest

from noisepilot.deploy.runtime import Gate, Limits, PolicyError, Seen, run_loop
from noisepilot.deploy.runtime.pace import Pace

from .toys import Clock, Counter, Planner


def play(planner, env, clock, **options):
    return run_loop(planner.policy(), env, clock=clock, sleep=clock.spend, **{"hz": 10.0, **options})


def test_chunks_history_and_episodes():
    planner, env, clock = Planner(n_obs_steps=2), Counter(5), Clock()
    report = play(planner, env, clock, episodes=2, seed=7)
    assert env.seeds == [7, 8]
    # Two of four actions are executed, then a new chunk is planned; a new episode starts with a new chunk.
    assert env.actions == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert planner.seen == [[0, 0], [1, 2], [3, 4]] * 2
    assert report["steps"] == 10
    assert report["inference_ms"]["count"] == 6  # without the warm-up
    assert report["episodes"] == [{"seed": s, "return": 2.5, "length": 5, "success": 1.0} for s in (7, 8)]
    assert (report["misses"], report["late_ms_max"], report["held"]) == (0, 0.0, 0)
    assert report["achieved_hz"] == pytest.approx(10.0, rel=1e-3)


def test_noise_depends_on_the_episodes_seed_alone():
    alone, later = Planner(), Planner()
    play(alone, Counter(4), Clock(), seed=3)
    play(later, Counter(4), Clock(), episodes=2, seed=2)
    assert later.noise[2:] == alone.noise


def test_latency_is_the_time_inside_act():
    clock = Clock()
    costs = iter([0.01, 0.01, 0.03])
    planner = Planner(cost=lambda: clock.spend(next(costs)))
    ms = play(planner, Counter(6), clock)["inference_ms"]
    assert ms["p50"] == pytest.approx(10, abs=0.1)
    assert ms["max"] == pytest.approx(30, abs=0.1)
    assert ms["p50"] <= ms["p95"] <= ms["p99"] <= ms["max"]


def test_misses_are_counted_with_their_lateness():
    clock = Clock()
    costs = iter([0.05, 0.13, 0.05, 0.05])
    report = play(Planner(), Counter(4, cost=lambda: clock.spend(next(costs))), clock)
    assert (report["misses"], report["steps"]) == (1, 4)
    assert report["late_ms_max"] == pytest.approx(30, abs=0.1)
    # The third step still ends on the grid: what the second lost is not added to it.
    assert report["achieved_hz"] == pytest.approx(10.0, rel=1e-3)


def test_pace_skips_deadlines_that_passed():
    clock = Clock()
    pace = Pace(10.0, clock, clock.spend)
    assert pace.wait() == 0.0
    clock.spend(0.35)
    assert pace.wait() == pytest.approx(0.25, abs=1e-4)
    assert pace.wait() == 0.0
    assert clock.now - pace.start == pytest.approx(0.5, abs=1e-4)


def test_actions_that_are_not_finite_are_held():
    env = Counter(6)
    report = play(Planner(bad=(1, 2)), env, Clock())
    assert env.actions == [0, 0, 0, 3, 4, 5]
    assert report["held"] == 2
    with pytest.raises(PolicyError, match="first action is not finite"):
        play(Planner(bad=(0,)), Counter(6), Clock())


def test_stops_after_steps():
    report = play(Planner(), Counter(5), Clock(), episodes=9, steps=7)
    assert report["steps"] == 7
    assert [e["length"] for e in report["episodes"]] == [5, 2]


def test_garbage_collection_rests_only_while_the_clock_runs():
    states = []
    play(Planner(cost=lambda: states.append(gc.isenabled())), Counter(4), Clock())
    assert states == [False, False]
    assert gc.isenabled()


def test_an_observation_does_not_grow_old_before_the_first_step(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(gc, "collect", lambda: clock.spend(1.0))  # as much as a large program's takes
    gate = Gate(Limits([-9.0], [9.0]), 10.0, stale_s=0.2)
    play(Planner(), Counter(4), clock, gate=gate, episodes=2)
    assert gate.counts == {}


def test_bad_rates():
    for wrong in ({"hz": 0.0}, {"hz": float("inf")}, {"hz": float("nan")}, {"episodes": 0}, {"steps": 0}):
        with pytest.raises(PolicyError, match="must be positive"):
            play(Planner(), Counter(4), Clock(), **wrong)
    for rate in (0.0, 15.0, float("inf"), float("nan")):
        with pytest.raises(PolicyError, match="is no multiple of the policy's 10 Hz"):
            play(Planner(), Counter(4), Clock(), controller_hz=rate)


# With a gate


def test_the_gate_decides_what_is_sent():
    env = Counter(8)
    gate = Gate(Limits([-9.0], [9.0], velocity=5.0), 10.0)  # 0.5 per step
    report = play(Planner(bad=(2,)), env, Clock(), gate=gate)
    assert env.actions == [0, 0.5, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert report["held"] == 0
    assert report["gate"] == {"steps": 8, "events": {"invalid": 1, "velocity": 6}, "latched": None}
    with pytest.raises(PolicyError, match=r"the gate was made for 10 Hz, the loop runs at 20 Hz"):
        play(Planner(), env, Clock(), gate=gate, hz=20.0)


def test_the_gate_learns_of_age_and_lateness():
    clock = Clock()
    costs = iter([0.0, 0.15, 0.0, 0.0])
    gate = Gate(Limits([-9.0], [9.0]), 10.0, late_s=0.01)
    play(Planner(), Counter(4, cost=lambda: clock.spend(next(costs))), clock, gate=gate)
    assert gate.counts == {"late": 1}
    planning = iter([0.0, 0.25])
    gate = Gate(Limits([-9.0], [9.0]), 10.0, stale_s=0.2)
    play(Planner(cost=lambda: clock.spend(next(planning))), Counter(4), clock, gate=gate)
    assert gate.counts == {"stale": 1}


def test_what_the_policy_refuses_is_the_gates_business():
    class Broken(Counter):
        def step(self, action):
            step = super().step(action)
            step.obs["state"] *= float("nan") if self.count == 2 else 1.0
            return step

    env = Broken(6)
    gate = Gate(Limits([-9.0], [9.0]), 10.0)
    play(Planner(), env, Clock(), gate=gate)
    assert env.actions == [0, 1, 1, 2, 3, 4]
    assert gate.counts == {"invalid": 1}


def test_no_episode_begins_behind_a_latched_gate():
    env = Counter(3)
    gate = Gate(Limits([-9.0], [9.0]), 10.0, seen=Seen({"state": ([0.0], [1.0])}), reactions={"ood": "stop"})
    report = play(Planner(), env, Clock(), gate=gate, episodes=5)
    assert env.seeds == [0]
    assert env.actions == [0, 1, 1]
    assert report["gate"]["latched"] == "ood"

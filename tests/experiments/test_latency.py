"""Success against delay: real files in a real simulator, and what the numbers advise."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from noisepilot.deploy.export import export
from noisepilot.deploy.in_torch import Guided
from noisepilot.deploy.runtime import Chunking, Delays, Policy
from noisepilot.envs import make_core
from noisepilot.errors import UserError
from noisepilot.experiments.delayed import Played, play_delayed
from noisepilot.experiments.deploy_verbs import run
from noisepilot.experiments.eval_verbs import evaluate
from noisepilot.experiments.latency import Cell, Curve, Grid, measure, modes_of
from noisepilot.experiments.latency_advice import advise, choose
from noisepilot.experiments.latency_page import render
from noisepilot.experiments.latency_verb import latency
from noisepilot.experiments.ledger import Ledger
from noisepilot.policies import save_policy
from noisepilot.tests.deploy.clocked import Ticker, Ticks
from noisepilot.tests.deploy.test_prefix import knowing
from noisepilot.tests.deploy.toys import make_policy

ENV = "PointMaze_UMaze-v3"
TORCH_FREE = """
import sys
from noisepilot.experiments.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


@pytest.fixture(scope="module", params=["onnx", "npz"])
def file(request, tmp_path_factory):
    env = make_core(ENV, 1)
    policy = make_policy("ddim5", env.spec.obs, env.spec.action)
    env.close()
    return export(policy, tmp_path_factory.mktemp("latency") / f"p.{request.param}", provenance={})


def play(policy, mode, delays=None, *, slots=3, seeds=range(5), **chunking):
    env = make_core(ENV, slots, max_episode_steps=40)
    try:
        return play_delayed(
            policy, env, list(seeds), hz=20.0, chunking=Chunking(mode, **chunking), delays=delays or Delays()
        )
    finally:
        env.close()


def test_without_delay_all_is_as_eval(file, tmp_path):
    policy = Policy.load(file)
    sync, ahead = (play(policy, mode, slots=1) for mode in ("sync", "async"))
    assert np.array_equal(sync.ledger.returns, ahead.ledger.returns)
    assert (sync.seams, sync.jerk) == (ahead.seams, ahead.jerk)
    assert sync.seams == 5 * (40 // policy.spec.n_action_steps - 1)
    kwargs = json.dumps({"max_episode_steps": 40})
    words = [str(file), "--env", ENV, "--env-kwargs", kwargs, "--episodes", "5", "--num-envs", "3"]
    evaluate([*words, "--out", str(tmp_path / "ledger.json")])
    assert np.array_equal(Ledger.load(tmp_path / "ledger.json").returns, sync.ledger.returns)


def test_commands_without_delay_are_equal_to_the_bit(file):
    policy, commands = Policy.load(file), {}
    for mode in ("sync", "async"):
        env = make_core(ENV, 1, max_episode_steps=30)
        sent, step = [], env.step
        env.step = lambda action, sent=sent, step=step: sent.append(action.copy()) or step(action)
        play_delayed(policy, env, [3], hz=20.0, chunking=Chunking(mode), delays=Delays())
        commands[mode] = np.concatenate(sent)
        env.close()
    assert commands["sync"].shape == (30, 1, 2)
    assert np.array_equal(commands["sync"], commands["async"])
    assert len(np.unique(commands["sync"])) > 15


def test_slots_do_not_matter(file):
    policy = Policy.load(file)
    delays = Delays(60.0, 50.0, 0.2)
    one, four = (play(policy, "async", delays, slots=slots, execute=1, ensemble=0.1) for slots in (1, 4))
    assert np.array_equal(one.ledger.length, four.ledger.length)
    assert one.seams == four.seams
    assert one.jerk["seams"] == pytest.approx(four.jerk["seams"], rel=1e-4)


def test_the_grid():
    env = Ticks(4, 30)
    grid = Grid([Delays(0.0), Delays(30.0), Delays(200.0)], ["sync", "async"], (4, 8), None, 6)
    curve = measure(Ticker(8, 8), env, grid, name="ticker")
    found = [(cell.delays.delay_ms, cell.name) for cell in curve.cells]
    assert found == [
        (0.0, "sync, 4"),
        (0.0, "sync, 8"),
        (0.0, "async, 4"),
        (0.0, "async, 8"),
        (30.0, "sync, 4"),
        (30.0, "sync, 8"),
        (30.0, "async, 4"),
        (30.0, "async, 5"),
        (200.0, "sync, 4"),
        (200.0, "sync, 8"),
    ]
    assert curve.skipped == ("async: a chunk of 8 actions is over before it arrives at 200 ms",)
    assert modes_of(Ticker()) == ["sync", "async"]
    assert modes_of(Ticker(max_prefix=3)) == ["sync", "async", "rtc"]
    with pytest.raises(UserError, match="mode rtc needs a policy"):
        modes_of(Ticker(), ["async", "rtc"])
    with pytest.raises(UserError, match="a number of at least 0"):
        measure(Ticker(8, 8), env, Grid([Delays(0.0)], ["async"], ensemble=-1.0), name="ticker")
    with pytest.raises(UserError, match="lasts for none of these delays"):
        measure(Ticker(8, 8), env, Grid([Delays(200.0)], ["async"]), name="ticker")


def cell(mode, delay, rate, goal=2.0, starved=0.0, jerk=1.0, episodes=100, horizon=8):
    """Successes of the same share come in the same episodes."""
    success = (np.arange(episodes) < rate * episodes).astype(float)
    seconds = np.full(episodes, goal) + np.linspace(0, 0.1, episodes)
    ledger = Ledger(
        env="Toy",
        seed=np.arange(episodes),
        returns=success.copy(),
        length=(100 * seconds).astype(int),
        success=success,
        time_s=seconds,
        goal_s=np.where(success > 0, seconds, np.nan),
    )
    execute = horizon if mode == "sync" else horizon - int(delay / 10)
    played = Played(ledger, starved, 0, int(delay / 10), 9, {"seams": jerk, "inside": 0.5})
    return Cell(Chunking(mode, execute), Delays(float(delay)), int(delay / 10), played)


def curve(*cells):
    return Curve("p.onnx", "Toy", 100.0, 8, cells)


def test_advice():
    found = advise(
        curve(
            cell("sync", 0, 0.9),
            cell("async", 0, 0.9),
            cell("sync", 20, 0.6, goal=3.0),
            cell("async", 20, 0.88),
            cell("sync", 60, 0.2),
            cell("async", 60, 0.5, starved=0.4, jerk=2.0),
        )
    )
    assert found == [
        "At 0 ms: sync, execute 8 of 8 actions (90 %). Without delay the modes do not differ.",
        "At 20 to 60 ms: async, execute 6, then 2 of 8 actions (88 % to 50 %). At 60 ms sync reaches 20 %.",
        "Up to 20 ms nothing is surely lost; at 60 ms even the best mode loses 40 points (95 % interval 31 to 50): "
        "bring the delay below that (fewer denoising steps, a distilled policy, a nearer or faster computer).",
        "From 60 ms on, async finds no plan for 40 % of the ticks: a chunk lasts 80 ms, and two delays have to fit. "
        "A policy with a horizon of 12 or more actions would go on without waiting.",
        "Commands jerk so many times as hard where chunks meet as inside, at 60 ms: sync 2, async 4; "
        "--ensemble 0.1, or rtc where the policy has it, smooths async.",
    ]


def test_equal_success_is_decided_by_time_and_then_by_simplicity():
    def chosen(*cells):
        return choose(curve(*cells), list(cells)).chunking.mode

    assert chosen(cell("sync", 20, 0.9), cell("async", 20, 0.88)) == "sync"
    assert chosen(cell("sync", 20, 0.9, goal=3.0), cell("async", 20, 0.9)) == "async"
    assert chosen(cell("sync", 20, 0.9, goal=3.0), cell("async", 20, 0.5)) == "sync"
    few = advise(curve(cell("sync", 0, 0.5, episodes=10), cell("sync", 50, 0.5, episodes=10)))
    assert few[-1].startswith("With 10 episodes intervals are wide")
    sooner = advise(curve(cell("sync", 20, 0.9, goal=3.0), cell("async", 20, 0.9)))
    assert "at 20 ms async gets there in 2.04 s, sync in 3.04 s" in sooner[0]


def test_where_nothing_succeeds_returns_decide():
    cells = [cell("sync", 20, 0.0), cell("async", 20, 0.0)]
    cells[1].played.ledger.returns[:] = 5.0
    found = advise(curve(*cells))
    assert found[0] == "At 20 ms: async, execute 6 of 8 actions (a return of 5). At 20 ms sync reaches a return of 0."


def test_the_page():
    cells = [cell(mode, delay, 0.9 - delay / 100) for delay in (0, 20, 60) for mode in ("sync", "async")]
    html = render(curve(*cells), ["Do <this>."])
    assert "Do &lt;this&gt;." in html
    assert html.count("<svg") == 4
    assert not re.search(r"<script|https?://|src=|NaN|nan<", html)
    assert "<td>60 ms<small>6 ticks</small></td><td>async</td><td>2</td><td><b>31 %</b></td>" in html


def test_the_verbs(file, tmp_path):
    out = tmp_path / "out"
    kwargs = json.dumps({"max_episode_steps": 30})
    words = ["latency", str(file), "--env", ENV, "--env-kwargs", kwargs, "--delays", "0", "100", "--episodes", "4"]
    words += ["--modes", "sync,async", "--drop", "0.1", "--out", str(out), "--json"]
    done = subprocess.run([sys.executable, "-c", TORCH_FREE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "latency.json").read_text())
    assert [(c["mode"], c["delay_ms"], c["delay_ticks"]) for c in found["cells"]] == [
        ("sync", 0.0, 0),
        ("async", 0.0, 0),
        ("sync", 100.0, 2),
        ("async", 100.0, 2),
    ]
    assert found["cells"][2]["starved"] > 0.2
    assert len(found["cells"][0]["episodes"]["return"]) == 4
    assert "Delay on PointMaze_UMaze-v3" in (out / "latency.html").read_text()
    with pytest.raises(UserError, match=r"sees .*, Hopper-v5 shows"):
        latency([str(file), "--env", "Hopper-v5", "--out", str(out)])
    with pytest.raises(UserError, match="drop 1 leaves no observation"):
        latency([str(file), "--drop", "1"])


def test_run_in_a_mode_with_a_page(file, tmp_path, capsys):
    page = tmp_path / "run.html"
    words = [str(file), "--env", ENV, "--hz", "100", "--steps", "60", "--mode", "async", "--report", str(page)]
    assert run([*words, "--delay-ms", "10", "--execute", "2"]) == 0
    line = capsys.readouterr().out.splitlines()[-2]
    assert line.startswith("mode async   execute 2   seams ")
    html = page.read_text()
    assert html.count("<svg") >= 4  # two elements, two plots of planning; a third one where deadlines were missed
    assert not re.search(r"<script|https?://|src=|nan<", html)
    with pytest.raises(UserError, match="mode rtc needs a policy"):
        run([*words, "--mode", "rtc"])


# Real-time chunking, of real policies


def watched(policy):
    """What it is told and what it answers, one row each."""
    told, act = [], policy.act

    def noting(obs, noise=None, **words):
        chunk = act(obs, noise, **words)
        if words.get("prefix") is not None:
            told.append(
                (words["prefix"].reshape(-1, *words["prefix"].shape[-2:]), chunk.reshape(-1, *chunk.shape[-2:]))
            )
        return chunk

    policy.act = noting
    return told


def test_a_file_trained_for_prefixes_continues_what_is_committed(tmp_path):
    policy = Policy.load(export(knowing(), tmp_path / "p.onnx", provenance={}))
    told = watched(policy)
    played = play(policy, "rtc", Delays(50.0), slots=5)
    assert (played.consumed, played.ledger.n_action_steps, played.starved) == (1, 3, 0.0)
    assert {prefix.shape[1:] for prefix, _ in told} == {(1, 2)}
    assert max(np.abs(chunk[:, :1] - prefix).max() for prefix, chunk in told) < 1e-5
    assert sum(len(chunk) for _, chunk in told) == 5 * 13  # every plan of 40 ticks but the first


def test_a_flow_is_guided_along_the_rest_of_the_chunk(tmp_path, capsys):
    policy = Guided(make_policy("shortcut4"))
    told = watched(policy)
    play(policy, "rtc", Delays(50.0), slots=5)
    assert {prefix.shape[1:] for prefix, _ in told} == {(1, 2)}  # of 4 actions 3 are executed
    save_policy(make_policy("shortcut4"), tmp_path / "policy", {})
    kwargs = json.dumps({"max_episode_steps": 12})
    words = ["--env", ENV, "--env-kwargs", kwargs, "--delays", "50", "--episodes", "2", "--out", str(tmp_path / "out")]
    assert latency([str(tmp_path / "policy"), *words]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[:3]] == ["sync,", "async,", "rtc,"]

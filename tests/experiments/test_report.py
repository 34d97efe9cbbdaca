import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from noisepilot.algos.sac import SAC
from noisepilot.errors import UserError
from noisepilot.experiments import curves, pictures, plots, report, standings
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.finetune import Finetune
from noisepilot.experiments.report_verbs import report as report_verb
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.policies.sampler import Sampler
from noisepilot.spec import ArraySpec

from .toys import Line, Pusher

VOID = {"meta", "img"}


class Balanced(HTMLParser):
    """Every opened element is closed; collects tags and what they refer to."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(text):
    page = Balanced()
    page.feed(text)
    assert page.open == []
    assert all(link.startswith("data:") for link in page.links), "nothing is loaded from elsewhere"
    assert "<script" not in text
    assert "NaN" not in text.replace("NaN</td>", "")
    assert not re.search(r'"[^"]*\bnan\b', text)


@pytest.fixture(scope="module")
def ledgers():
    return {name: evaluate(Pusher(drift), Line(40), range(40)) for name, drift in (("base", 0.03), ("tuned", 0.06))}


def make_run(path, ledgers, seed=0, env="Line", lines=30):
    run = RunFolder.create(path, Sampler(steps=5))
    facts = run.facts
    facts["config"] |= {"seed": seed, "env": env, "out": str(path)}
    (path / "config.json").write_text(json.dumps(facts))
    for i in range(lines):
        success = 0.2 + 0.02 * i
        run.log(
            {
                "env_steps": 100 * i,
                "wall_s": 2.0 * i,
                "rollout/success_rate": success,
                "rollout/success_rate_low": success - 0.1,
                "rollout/success_rate_high": success + 0.1,
                "train/approx_kl": 0.01 * i + seed,
                "train/odd<name>": float("nan") if i == 3 else 1.0,
                "time/env_s": 0.5,
                "time/update_s": 1.5,
            }
        )
    for name, ledger in ledgers.items():
        ledger.save(run.eval_path(name))
    return run


def test_one_run(tmp_path, ledgers):
    run = make_run(tmp_path / "a<b>", ledgers)
    record = pictures.record_trajectories(Pusher(), Line(4), range(3))
    chain = {
        "t": [0.0, 0.5, 1.0],
        "names": ["u", "v", "w"],
        "x": np.random.default_rng(0).normal(size=(2, 3, 4, 3)).tolist(),
    }
    pictures.save_pictures(run.path / "pictures.json", "tuned", trajectories=record, chain=chain)
    text = report.report([run.path]).read_text()
    check_page(text)
    for expected in (
        "Tuned succeeds",
        "a&lt;b&gt;",
        "train/odd&lt;name&gt;",
        "from noise to action",
        "revision",
    ):
        assert expected in text
    assert "75 %" in text, "share of the update"


def test_bare_run(tmp_path):
    run = RunFolder.create(tmp_path / "bare", Sampler())
    check_page(report.report([run.path], tmp_path / "r.html").read_text())


def test_several_runs_share_a_curve(tmp_path, ledgers):
    runs = [make_run(tmp_path / f"dppo-seed{s}", ledgers, seed=s) for s in range(3)]
    other = make_run(tmp_path / "flow", ledgers, env="Circle")
    groups = curves.load([run.path for run in [*runs, other]])
    assert [(g.name, len(g.runs)) for g in groups] == [("dppo", 3), ("flow", 1)]
    line = groups[0].line("train/approx_kl", "env_steps")
    assert line is not None
    assert line.low is not None
    assert line.high is not None
    np.testing.assert_allclose(line.y, line.low + 1)
    np.testing.assert_allclose(line.high, line.low + 2)
    text = report.render(groups)
    check_page(text)
    assert "Differs in" in text
    assert "3 runs of 40 paired episodes" in text


def test_intervals_of_equal_runs_do_not_shrink(tmp_path, ledgers):
    one = standings.Entry("x", "x", (ledgers["base"],), 0, None).intervals()["success"]
    three = standings.Entry("x", "x", (ledgers["base"],) * 3, 0, None).intervals()["success"]
    assert one is not None
    assert three is not None
    assert three.mean == pytest.approx(one.mean)
    assert three.high - three.low > 0.85 * (one.high - one.low), "the same episodes thrice are no new evidence"


def test_runs_are_aligned_by_seed(ledgers):
    short = ledgers["base"].at(np.arange(10, 30))
    assert standings._aligned([ledgers["base"], short], "base")[0].seed.tolist() == list(range(10, 30))
    with pytest.raises(UserError, match="share no seed"):
        standings._aligned([short, ledgers["base"].at(np.arange(5))], "base")


def test_evaluations_of_training_are_base_and_tuned(tmp_path, ledgers):
    steps = {"000000000": ledgers["base"], "000000100": ledgers["base"], "000002000": ledgers["tuned"]}
    (group,) = curves.load([make_run(tmp_path / "a", steps).path])
    found = group.runs[0].ledgers
    assert list(found) == ["base", "tuned"]
    assert found["tuned"].returns.mean() == ledgers["tuned"].returns.mean()


def test_training_without_a_base_has_a_start(tmp_path, ledgers):
    for name, policy in (("fresh", ""), ("tuned", "runs/base")):
        run = RunFolder.create(tmp_path / name, Finetune(policy=policy, out=name, algo=SAC()))
        for step, ledger in (("000000000", ledgers["base"]), ("000002000", ledgers["tuned"])):
            ledger.save(run.eval_path(step))
    fresh, tuned = curves.load([tmp_path / "fresh", tmp_path / "tuned"])
    assert (list(fresh.runs[0].ledgers), list(tuned.runs[0].ledgers)) == (["start", "tuned"], ["base", "tuned"])
    assert [entry.kind for entry in standings.entries([fresh])] == ["start", "tuned"]
    assert "often than start" in standings.findings(standings.entries([fresh]))[0]


def test_thinning_keeps_the_mean():
    x = np.arange(1000.0)
    (thinned,) = curves.thin(x)
    assert len(thinned) == curves.POINTS
    assert thinned[0] < 5
    assert thinned.mean() == pytest.approx(x.mean(), rel=0.01)


def test_verb(tmp_path, capsys):
    run = RunFolder.create(tmp_path / "a", ArraySpec((1,)))
    assert report_verb([str(run.path), "--out", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r.html")
    with pytest.raises(UserError, match="no run folder"):
        report_verb([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3.0, 97.0, [0, 20, 40, 60, 80, 100]),
        (-0.011, 0.012, [-0.015, 0.015]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
    found = plots.ticks(low, high, 5)
    assert (found[0], found[-1]) == pytest.approx((expected[0], expected[-1]))
    assert len(expected) < 3 or found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.0, "0"), (1234567.0, "1.23M"), (35000.0, "35k"), (3234.3, "3234"), (-0.0123, "-0.0123"), (2e9, "2G")],
)
def test_numbers_are_short(x, text):
    assert plots.number(x) == text


def test_flat_and_gappy_curves_are_drawn():
    x = np.array([0.0, 1.0, 2.0])
    lines = [plots.Line("flat", x, np.ones(3)), plots.Line("gap", x, np.array([1.0, np.nan, 2.0]))]
    drawing = plots.line_plot(lines, xlabel="env steps")
    assert "nan" not in drawing
    assert drawing.count('class="curve"') == 2


def test_gradient_steps_count_where_nothing_was_executed(tmp_path, ledgers):
    run = make_run(tmp_path / "offline", ledgers)
    rows = [row | {"env_steps": 0, "grad_steps": 10 * i} for i, row in enumerate(run.metrics())]
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = report.report([run.path]).read_text()
    assert "grad steps" in text
    assert "over env steps" not in text

import io
import re

import pytest
from rich.console import Console

from noisepilot.experiments import progress as module
from noisepilot.experiments.progress import Progress, duration, sparkline

METRICS = {
    "env_steps": 1000,
    "rollout/ep_rew_mean": 12.5,
    "rollout/success_rate": 0.4,
    "rollout/success_rate_low": 0.3,
    "rollout/success_rate_high": 0.5,
    "train/approx_kl": 0.0123,
    "train/clip_fraction": 0.2,
}


def test_plain_lines_without_a_terminal(monkeypatch):
    out = io.StringIO()
    with Progress("finetune dppo", total=4000, console=Console(file=out, width=200)) as progress:
        for i in range(1, 5):
            progress.update(METRICS | {"env_steps": 1000 * i})
    lines = out.getvalue().splitlines()
    assert len(lines) == 2, "one at once, the others within two seconds, and the last at the end"
    assert "finetune dppo  4,000 / 4,000 env steps (100 %)" in lines[1]
    assert "success 40.0 % [30.0 %, 50.0 %]" in lines[1]
    assert "KL 0.0123" in lines[1]
    assert "\x1b" not in out.getvalue()


def test_lines_come_every_two_seconds(monkeypatch):
    now = iter(range(0, 1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(now)))
    out = io.StringIO()
    with Progress("pretrain", total=9, unit="grad_steps", console=Console(file=out)) as progress:
        for i in range(9):
            progress.update({"grad_steps": i, "train/loss": 1.0 / (i + 1)})
    assert 3 < len(out.getvalue().splitlines()) <= 10


def test_screen_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Progress("finetune dppo", total=4000, console=console) as progress:
        for i in range(1, 4):
            progress.update(METRICS | {"env_steps": 1000 * i, "rollout/success_rate": i / 10})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "finetune dppo" in text
    assert "▁▅█" in text
    assert "3,000 / 4,000 env steps (75 %)" in text


def test_an_error_inside_passes_through():
    with (
        pytest.raises(ValueError, match="inside"),
        Progress("x", total=1, console=Console(file=io.StringIO())),
    ):
        raise ValueError("inside")


def test_sparkline():
    assert sparkline([], width=4) == ""
    assert sparkline([1.0, 1.0], width=4) == "▁▁"
    assert sparkline([float(i) for i in range(100)], width=8) == "▁▂▃▄▅▆▇█"


@pytest.mark.parametrize(("seconds", "text"), [(42.0, "42 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text

"""Distillation: the student, from an environment and from data."""

from shlex import split

import pytest

from noisepilot.experiments.cli import main
from noisepilot.experiments.run_folder import RunFolder
from noisepilot.policies import load_policy
from noisepilot.policies.storage import find_policy

from .runs import metrics, pretrained, same_runs, write_data
from .seeing import FACTORY, TRAIN, VIT, write_demos

FIT = ["--distill.fit.grad-steps", "20", "--distill.fit.batch", "16", "--distill.decisions", "128"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("teacher"))


def distil(teacher, out, *options):
    return main(["distill", "hopper", "--policy", teacher, "--out", str(out), *FIT, *options])


def test_from_an_environment(tmp_path, teacher):
    for name in ("a", "b"):
        assert distil(teacher, tmp_path / name, "--eval-episodes", "2") == 0
    same_runs(tmp_path / "a", tmp_path / "b")
    run = RunFolder.open(tmp_path / "a")
    ledgers = run.ledgers()
    assert list(ledgers) == ["student", "teacher"]
    assert ledgers["student"].seed.tolist() == ledgers["teacher"].seed.tolist() == [0, 1]
    student = load_policy(find_policy(run.path))
    assert (student.config.sampler.steps, student.config.predicts) == (1, "data")
    assert [line["grad_steps"] for line in metrics(run.path)] == [10, 20]


def test_from_data(tmp_path, teacher):
    demos = write_data(tmp_path / "demos.npz")
    assert distil(teacher, tmp_path / "run", "--data", demos) == 0
    assert RunFolder.open(tmp_path / "run").ledgers() == {}


def test_a_policy_that_sees_hands_its_encoder_on(tmp_path):
    demos, base = write_demos(tmp_path / "demos"), str(tmp_path / "base")
    sees = split("--policy.observe state images.front")
    assert main(["pretrain", "default", *TRAIN, *VIT, *sees, "--data", demos, "--out", base]) == 0
    env = ["--env", FACTORY, "--env-kwargs", '{"max_episode_steps": 6}', "--eval-episodes", "2"]
    for name, source in (("recorded", ["--data", demos]), ("met", env)):
        options = ["--policy", base, "--distill.method", "reflow", *FIT, *source]
        assert main(["distill", "default", *options, "--out", str(tmp_path / name)]) == 0
        teacher, student = load_policy(base), load_policy(tmp_path / name)
        assert student.config.sampler.steps == 2
        for a, b in zip(teacher.network.encoder.parameters(), student.network.encoder.parameters(), strict=True):
            assert (a == b).all()
    assert list(RunFolder.open(tmp_path / "met").ledgers()) == ["student", "teacher"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--env", "Walker2d-v5"], "differ in observations"),
        (["--env", "Hoper-v5"], "did you mean 'Hopper-v5'?"),
        (["--data", "absent.npz"], "no dataset at absent.npz"),
        (["--distill.method", "regresion"], "did you mean 'regression'?"),
        (["--distill.rounds", "0"], "rounds must be at least 1"),
        (["--distill.rounds", "21"], "grad_steps must be at least 21"),
    ],
)
def test_refusals_leave_nothing(tmp_path, teacher, capsys, options, words):
    assert distil(teacher, tmp_path / "run", *options) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_data_of_another_robot_leave_nothing(tmp_path, teacher, capsys):
    demos = write_data(tmp_path / "demos.npz", obs=5)
    assert distil(teacher, tmp_path / "run", "--data", demos) == 2
    assert "observation 'state' has shape" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""The command line as a whole: what it costs to ask for help, and that every verb is there."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

import noisepilot
from noisepilot.errors import UserError
from noisepilot.experiments import cli
from noisepilot.experiments.cli import VERBS, main, take_option, take_positional

HEAVY = ("torch", "numpy", "mujoco", "gymnasium", "zarr", "tyro", "rich")


@pytest.mark.parametrize("code", ["import noisepilot", "noisepilot.__main__.main()"])
def test_help_imports_nothing_heavy(code):
    script = f"""
import json, sys
sys.argv = ["noisepilot", "--help"]
import noisepilot.__main__
{code}
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    if "main()" in code:
        script = script.replace(code, f"try:\n    {code}\nexcept SystemExit:\n    pass")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_overview_names_every_verb(capsys):
    for argv in ([], ["-h"], ["--help"]):
        assert main(argv) == 0
        listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        assert listed == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_there_and_helps(verb, capsys):
    module, _, function = VERBS[verb][0].partition(":")
    assert callable(getattr(import_module(f"noisepilot.experiments.{module}"), function))
    try:
        code = main([verb, "--help"])
    except SystemExit as stop:  # tyro's way
        code = stop.code
    assert code == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("verb", ["collect", "info", "check", "convert"])
def test_every_data_verb_helps(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", verb, "--help"])
    assert stop.value.code == 0
    assert f"noisepilot data {verb}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"noisepilot {noisepilot.__version__}\n"


def test_ctrl_c(monkeypatch, capsys):
    def stop(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_verb", lambda name: stop)
    assert main(["eval", "run"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"
    assert main(["pretrain"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_options_that_choose_the_defaults_of_others():
    assert take_option(["a", "--algo", "x", "b"], "--algo", "d") == ("x", ["a", "b"])
    assert take_option(["--algo=x", "b"], "--algo", "d") == ("x", ["b"])
    assert take_option(["b"], "--algo", "d") == ("d", ["b"])
    with pytest.raises(UserError, match="--algo needs a value"):
        take_option(["--algo"], "--algo", "d")
    assert take_positional(["hopper", "--x"], "default") == ("hopper", ["--x"])
    assert take_positional(["--x"], "default") == ("default", ["--x"])

"""The verb `doctor`."""

import json
import subprocess
import sys

import pytest

from noisepilot.experiments import doctor
from noisepilot.experiments.doctor import Finding


def test_verb(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "renders", lambda backend: Finding(f"gl-{backend}", "missing", "-", core=False))
    assert doctor.doctor(["--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"python", "torch", "mujoco", "gymnasium", "write", "cores", "gl-egl", "onnxruntime"} <= found.keys()
    assert all(row["state"] in ("ok", "missing", "broken") and row["fact"] for row in found.values())


def test_a_broken_core_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("torch", "broken", "gone", "pip install torch")])
    assert doctor.doctor([]) == 1
    assert "torch\tbroken\tgone\tpip install torch" in capsys.readouterr().out


def test_a_missing_extra_is_none(monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "no_such_module", ("hdf5", "tests"))
    finding = doctor.extra("no_such_module")
    assert (finding.state, finding.core, finding.fix) == ("missing", False, "pip install 'noisepilot[hdf5]'")


def test_another_mujoco(monkeypatch):
    mujoco = pytest.importorskip("mujoco")
    monkeypatch.setattr(mujoco, "__version__", "3.9.1")
    finding = doctor.mujoco()
    assert (finding.state, finding.fix) == ("broken", "pip install 'mujoco>=3.3,<3.9'")


def test_a_check_that_fails_is_a_finding(monkeypatch):
    def fails():
        raise RuntimeError("no such thing\nmore")

    monkeypatch.setattr(doctor, "torch", fails)
    monkeypatch.setattr(doctor, "renders", lambda backend: Finding(f"gl-{backend}", "ok", "-"))
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["torch"].state == "broken"
    assert found["torch"].fact == "RuntimeError: no such thing"
    assert found["python"].state == "ok"


def test_a_folder_that_cannot_be_written(monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert doctor.writable().state == "broken"


def test_modules_are_light():
    code = (
        "import sys, noisepilot.experiments.doctor, noisepilot.experiments.list_verb, "
        "noisepilot.experiments.bench_verbs; "
        "print(sorted({'torch', 'mujoco', 'gymnasium', 'numpy', 'diffusers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

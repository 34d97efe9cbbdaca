"""Whether frames can be drawn, and why not."""

import os
import subprocess
import sys

import pytest

from noisepilot.experiments import drawing
from noisepilot.experiments.drawing import EGL, MESA, OSMESA, draw, explain


@pytest.mark.parametrize("frame", ["import os; os.abort()", "raise RuntimeError('no GL')", "print(False)"])
def test_drawing_that_fails(monkeypatch, frame):
    monkeypatch.setattr(drawing, "FRAME", frame)
    found = draw("egl")
    assert not found.drawn
    assert found.fix == MESA


def test_drawing_that_hangs(monkeypatch):
    monkeypatch.setattr(drawing, "FRAME", "import time; time.sleep(60)")
    assert draw("egl", seconds=0.2).fact == "no frame within 0 s"


@pytest.mark.skipif(sys.platform != "linux", reason="fixes are Debian's commands")
@pytest.mark.parametrize(
    ("variables", "fix"),
    [
        ({"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/none"}, MESA),
        ({"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "7"}, "unset MUJOCO_EGL_DEVICE_ID"),
        ({"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"}, "unset PYOPENGL_PLATFORM"),
        ({"MUJOCO_GL": "foo"}, "export MUJOCO_GL=egl"),
    ],
)
def test_real_faults_have_their_own_fix(variables, fix):
    if not draw("egl").drawn:
        pytest.skip(f"drawing needs EGL: {EGL}")
    clean = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    run = subprocess.run([sys.executable, "-c", drawing.FRAME], env=clean | variables, capture_output=True, text=True)
    assert explain(run.stderr)[1] == fix


def test_libraries_that_are_absent():
    assert explain("AttributeError: 'NoneType' object has no attribute 'eglQueryString'")[1] == EGL
    assert explain("AttributeError: 'NoneType' object has no attribute 'glGetError'")[1] == OSMESA
    assert explain("ModuleNotFoundError: No module named 'OpenGL'")[1] == "pip install pyopengl"

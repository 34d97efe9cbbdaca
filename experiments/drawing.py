"""Whether MuJoCo can draw on this machine, tried with one frame per backend, and the fix for what stops it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

SECONDS = 60
FRAME = """
import OpenGL
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    print(renderer.render().max() > 0)
"""
BACKENDS = ("egl", "osmesa")
EGL, MESA, OSMESA = (f"apt-get install {names}" for names in ("libegl1", "libegl-mesa0 libgl1-mesa-dri", "libosmesa6"))
FAULTS = (
    ("No module named 'OpenGL|import of OpenGL halted", "PyOpenGL is absent", "pip install pyopengl"),
    ("has no attribute 'Renderer'", "PyOpenGL was told to draw otherwise", "unset PYOPENGL_PLATFORM"),
    ("environment variable MUJOCO_GL", "MUJOCO_GL names no backend", "export MUJOCO_GL=egl"),
    ("MUJOCO_EGL_DEVICE_ID", "MUJOCO_EGL_DEVICE_ID names no device", "unset MUJOCO_EGL_DEVICE_ID"),
    ("Permission denied.*/dev/dri", "the graphics device is not yours", "usermod -aG render,video $USER"),
    ("eglQueryString|Unable to load EGL", "the library libEGL is absent", EGL),
    ("Cannot initialize a EGL device display|EGL_NOT_INITIALIZED", "EGL finds no driver", MESA),
    ("no attribute 'glGetError'|Unable to load OSMesa", "the library libOSMesa is absent", OSMESA),
    ("platform library has not been loaded|DISPLAY|GLFW", "there is no screen", "export MUJOCO_GL=egl"),
)
"""what the traceback holds, in words, the fix; the first that fits counts"""


@dataclass(frozen=True)
class Frame:
    """How drawing went."""

    drawn: bool
    fact: str
    fix: str = ""


def explain(text: str) -> tuple[str, str]:
    """What stops drawing, in words, and the fix, from a traceback; the last error itself and no fix if unknown."""
    for pattern, words, fix in FAULTS:
        if re.search(pattern, text):
            return words, fix if sys.platform == "linux" else "unset MUJOCO_GL"
    lines = [line.strip() for line in text.splitlines() if "Error" in line]
    return (lines[0][:120] if lines else "the picture is black"), ""


def draw(backend: str, seconds: float = SECONDS) -> Frame:
    """One frame in a process of its own: a GL library that fails may take its process along."""
    environ = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        run = subprocess.run(
            [sys.executable, "-c", FRAME], env=environ, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return Frame(False, f"no frame within {seconds:.0f} s", MESA if sys.platform == "linux" else "unset MUJOCO_GL")
    if run.returncode == 0 and run.stdout.strip() == "True":
        return Frame(True, f"draws; use it with MUJOCO_GL={backend}")
    words, fix = explain(run.stderr)
    return Frame(False, f"cannot draw: {words}", fix or {"egl": MESA, "osmesa": OSMESA}[backend])

"""Pictures of MuJoCo states, drawn only when asked for."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import mujoco
import numpy as np
from mujoco import gl_context

from ..errors import UserError

TRACKING = "track"
"""the camera that Gymnasium's walking models carry"""


class Camera:
    """Draws states of one model; the renderer is made with the first picture."""

    def __init__(self, model: mujoco.MjModel, distance: float | None = None) -> None:
        self.model = model
        self.distance = distance
        """of a camera that looks down on the whole scene; None: the model's own view"""
        self.renderer: mujoco.Renderer | None = None

    def picture(self, state: np.ndarray, spec: int, width: int, height: int) -> np.ndarray:
        """Draw the state vector that the mjtState bits `spec` describe, (height, width, 3) uint8."""
        renderer = self._renderer(width, height)
        data = mujoco.MjData(self.model)
        mujoco.mj_setState(self.model, data, state, spec)
        mujoco.mj_forward(self.model, data)
        renderer.update_scene(data, self._view())
        return renderer.render()

    def close(self) -> None:
        """Free the renderer."""
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None

    def _renderer(self, width: int, height: int) -> mujoco.Renderer:
        if self.renderer is None or (self.renderer.width, self.renderer.height) != (width, height):
            self.close()
            offscreen = self.model.vis.global_
            offscreen.offwidth = max(offscreen.offwidth, width)
            offscreen.offheight = max(offscreen.offheight, height)
            self.renderer = new_renderer(self.model, width, height)
        return self.renderer

    def _view(self) -> str | mujoco.MjvCamera:
        if self.distance is None and TRACKING in {self.model.camera(i).name for i in range(self.model.ncam)}:
            return TRACKING
        view = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self.model, view)
        if self.distance is not None:
            view.lookat[:] = 0
            view.distance, view.azimuth, view.elevation = self.distance, 90, -90
        return view


def new_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """A renderer, or an error that says how to get OpenGL without a display."""
    # MuJoCo chose its backend when it was imported; MUJOCO_GL may have changed since.
    if not can_draw(os.environ, sys.platform, gl_context.GLContext.__module__):
        raise UserError("cannot draw without a display: start with MUJOCO_GL=egl or MUJOCO_GL=osmesa")
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # each GL backend fails in its own way, with its own class
        raise UserError(f"cannot draw: {error}; start with MUJOCO_GL=egl or MUJOCO_GL=osmesa") from error


def can_draw(environ: Mapping[str, str], platform: str, backend: str) -> bool:
    """Whether OpenGL has a place to draw. Trying without one ends the process at the second attempt."""
    headless = platform == "linux" and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    return not headless or backend.rpartition(".")[2] in ("egl", "osmesa")

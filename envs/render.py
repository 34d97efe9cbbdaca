"""Pictures of MuJoCo states, drawn only when asked for."""

from __future__ import annotations

import mujoco
import numpy as np

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
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # each GL backend fails in its own way, with its own class
        raise UserError(
            f"cannot draw: OpenGL is missing ({error}); set MUJOCO_GL=egl (GPU or Mesa) or MUJOCO_GL=osmesa before starting"
        ) from error

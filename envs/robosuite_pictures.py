"""Pictures of a robosuite simulator, drawn by MuJoCo's own renderer: upright, as robomimic's data sets have them.

They equal robosuite's to the bit. Its own tasks have no light that casts shadows; what costs is the floor's reflection.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from .render import new_renderer

EFFECTS = (int(mujoco.mjtRndFlag.mjRND_SHADOW), int(mujoco.mjtRndFlag.mjRND_REFLECTION))


class Pictures:
    """Renderers of the present model, one per size."""

    def __init__(self, effects: bool) -> None:
        self.effects = effects
        self.model: Any = None
        self.renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self.options = mujoco.MjvOption()
        self.options.geomgroup[:2] = 0, 1  # what is seen, not what collides

    def draw(self, sim: Any, camera: str, width: int, height: int) -> np.ndarray:
        """What a camera sees, (height, width, 3) uint8."""
        model, data = sim.model._model, sim.data._data
        if model is not self.model:  # every reset builds a new one
            self.close()
            self.model = model
        if (width, height) not in self.renderers:
            self.renderers[width, height] = new_renderer(model, width, height)
        renderer = self.renderers[width, height]
        renderer.update_scene(data, camera, self.options)
        for effect in EFFECTS:
            renderer.scene.flags[effect] = self.effects
        return renderer.render()

    def close(self) -> None:
        """Free the renderers."""
        for renderer in self.renderers.values():
            renderer.close()
        self.renderers.clear()
        self.model = None

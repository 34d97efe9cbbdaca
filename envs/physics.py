"""Reading MuJoCo models, and what MuJoCo says while it runs."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import mujoco

from ..errors import UserError

PHYSICS = int(mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
"""time, positions, velocities and activations: the state that `mujoco.rollout` gives back"""

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION.value)
"""everything the next step depends on, also controls and the solver's warm start"""


def load_model(env: str, xml_file: str) -> mujoco.MjModel:
    """Read a model as Gymnasium finds it: among its own, unless the name says where to look."""
    log_warnings()
    path = Path(xml_file).expanduser()
    if not xml_file.startswith((".", "/", "~")):
        path = gymnasium_assets() / xml_file
    if not path.is_file():
        raise UserError(f"xml_file of {env}: there is no file {path}")
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise UserError(f"xml_file of {env}: {str(error).splitlines()[0]}") from error


def gymnasium_assets() -> Path:
    """Where the installed Gymnasium keeps its models; found without importing it."""
    spec = find_spec("gymnasium")
    assert spec is not None, "a dependency of this package"
    return Path(str(spec.origin)).parent / "envs" / "mujoco" / "assets"


def log_warnings() -> None:
    """Send MuJoCo's warnings to `logging`; by itself it writes MUJOCO_LOG.TXT into the working directory."""
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(logging.getLogger("noisepilot.envs").warning)

"""The verb `doctor`: what works on this machine, and the fix for what does not.

Every check answers with one line of fact; a check that fails says which command repairs it. Exit code 1 only if
something in the core is broken.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled module has no stubs)

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from .cli import parse
from .drawing import BACKENDS, draw

State = Literal["ok", "missing", "broken"]
MUJOCO_FROM, MUJOCO_BELOW = (3, 3), (3, 9)
"""versions of MuJoCo whose trajectories are tested"""
EXTRAS = {
    "h5py": ("hdf5", "reading D4RL files"),
    "pyarrow": ("lerobot", "reading and writing LeRobot datasets"),
    "av": ("lerobot", "their videos"),
    "onnx": ("export", "writing .onnx files"),
    "onnxscript": ("export", "writing .onnx files"),
    "onnxruntime": ("export", "running .onnx files"),
    "openvino": ("openvino", "running .onnx files by OpenVINO"),
    "websockets": ("serve", "serving policies, and playing served ones"),
    "msgpack": ("serve", "the same"),
    "tensorboard": ("tensorboard", "TensorBoard logs"),
    "wandb": ("wandb", "Weights & Biases logs"),
    "diffusers": ("bench", "peers of `noisepilot bench`"),
}
"""module -> extra of noisepilot that brings it, what it is for"""


@dataclass(frozen=True)
class Doctor:
    """Say what works on this machine, and the fix for what does not."""

    json: bool = False
    """print JSON"""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    state: State
    fact: str
    fix: str = ""
    """the command that repairs it"""
    core: bool = True
    """nothing works without it"""


def doctor(argv: Sequence[str]) -> int:
    """`noisepilot doctor [--json]`: print the findings; 1 if something in the core is broken."""
    options = parse(Doctor, argv, "noisepilot doctor")
    findings = examine()
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        from .table import show

        show(("name", "state", "fact", "fix"), [(f.name, f.state, f.fact, f.fix) for f in findings])
    return int(any(f.core and f.state != "ok" for f in findings))


def examine() -> list[Finding]:
    """Run all checks; one that fails unexpectedly is reported as broken, and the others go on."""
    from ..envs.suites import SUITES

    checks: dict[str, Callable[[], Finding]] = {
        "python": python,
        "cores": cores,
        "torch": torch,
        "cuda": cuda,
        "fast-matmul": fast_matmul,
        "mujoco": mujoco,
        "gymnasium": gymnasium,
        "write": writable,
        **{module: lambda module=module: extra(module) for module in EXTRAS},
        **{f"envs-{name}": lambda name=name: suite(name) for name in SUITES},
        **{f"gl-{backend}": lambda backend=backend: renders(backend) for backend in BACKENDS},
    }
    return [_guarded(name, check) for name, check in checks.items()]


def python() -> Finding:
    """3.11 or newer."""
    state: State = "ok" if sys.version_info >= (3, 11) else "broken"
    fact = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", state, fact, "" if state == "ok" else "install Python 3.11 or newer")


def cores() -> Finding:
    """Processor cores this process may use."""
    from ..envs.threads import cores as usable

    return Finding("cores", "ok", f"{usable()} usable of {os.cpu_count()}")


def torch() -> Finding:
    """PyTorch computes."""
    import torch

    works = float(torch.ones(2, 2).mm(torch.ones(2, 2)).sum()) == 8
    fact = f"{torch.__version__}, {torch.get_num_threads()} threads"
    return Finding("torch", "ok" if works else "broken", fact, "" if works else _install("torch>=2.8"))


def cuda() -> Finding:
    """PyTorch sees a GPU; none is fine."""
    import torch

    if torch.cuda.is_available():
        return Finding("cuda", "ok", torch.cuda.get_device_name(0), core=False)
    if shutil.which("nvidia-smi") is None:
        return Finding("cuda", "missing", "no NVIDIA driver on this machine", core=False)
    fix = "nvidia-smi" if torch.version.cuda else "pip install --force-reinstall torch"
    return Finding("cuda", "missing", f"torch {torch.__version__} sees no GPU", fix, core=False)


def fast_matmul() -> Finding:
    """What the probe before a training would decide."""
    import torch

    from ..policies.matmul import use_fast_matmul

    before = torch.get_float32_matmul_precision()
    try:
        fast = use_fast_matmul()
    finally:
        torch.set_float32_matmul_precision(before)
    words = "used: faster and as accurate" if fast else "not used: the default kernels are as good"
    return Finding("fast-matmul", "ok", f"second float32 kernel {words}", core=False)


def mujoco() -> Finding:
    """A version whose trajectories are tested, and it steps."""
    import mujoco

    low, high = (".".join(map(str, v)) for v in (MUJOCO_FROM, MUJOCO_BELOW))
    found = tuple(int(part) for part in mujoco.__version__.split(".")[:2])
    if not MUJOCO_FROM <= found < MUJOCO_BELOW:
        fact = f"{mujoco.__version__}, outside {low} to {high}"
        return Finding("mujoco", "broken", fact, _install(f"mujoco>={low},<{high}"))
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    mujoco.mj_step(model, mujoco.MjData(model))
    return Finding("mujoco", "ok", mujoco.__version__)


def gymnasium() -> Finding:
    """Native environments find Gymnasium's models."""
    from ..envs import make_core

    core = make_core("Hopper-v5")
    core.reset([0])
    core.close()
    return Finding("gymnasium", "ok", f"{version('gymnasium')}, Hopper-v5 runs natively")


def writable() -> Finding:
    """Runs can be written to the working directory."""
    try:
        tempfile.TemporaryFile(dir=".").close()
    except OSError as error:
        return Finding("write", "broken", f"cannot write here: {error.strerror}", "cd to a folder of yours")
    free = _free_gigabytes()
    return Finding("write", "ok", f"working directory, {free:.0f} GB free")


def extra(module: str) -> Finding:
    """An optional package."""
    name, purpose = EXTRAS[module]
    fix = _install(f"noisepilot[{name}]")
    try:
        found = version(module.replace("_", "-"))
    except PackageNotFoundError:
        return Finding(module, "missing", f"for {purpose}", fix, core=False)
    try:
        import_module(module)
    except Exception as error:  # a package may fail to load in any way
        return Finding(module, "broken", f"{found} does not load: {_line(error)}", fix, core=False)
    return Finding(module, "ok", f"{found}, {purpose}", core=False)


def renders(backend: str) -> Finding:
    """Draw one frame."""
    frame = draw(backend)
    return Finding(f"gl-{backend}", "ok" if frame.drawn else "missing", frame.fact, frame.fix, core=False)


def suite(name: str) -> Finding:
    """A suite of environments; `noisepilot envs check` tries them."""
    from ..envs.suites import SUITES

    found, lacks = SUITES[name].version, SUITES[name].lacks
    fact = f"{found}, {f'without {lacks}' if lacks else SUITES[name].ids}" if found else f"for {SUITES[name].ids}"
    fix = "" if found and not lacks else f"noisepilot envs install {name}"
    return Finding(f"envs-{name}", "ok" if not fix else "missing", fact.rstrip(", "), fix, core=False)


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # whatever it is, it is the finding
        return Finding(name, "broken", _line(error), _install("--force-reinstall noisepilot"))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def _install(what: str) -> str:
    return f"pip install {what}" if what.startswith("-") else f"pip install '{what}'"


def _free_gigabytes() -> float:
    return shutil.disk_usage(".").free / 1e9

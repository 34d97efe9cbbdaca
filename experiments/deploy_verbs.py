"""`noisepilot export` writes a policy as one file; `noisepilot run` plays it in real time without torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from ..errors import UserError
from ..files import atomic_write
from .cli import parse
from .env_ref import EnvRef
from .serve_verb import read_token

if TYPE_CHECKING:
    from ..datasets.episodes import Episodes
    from ..deploy.graph import Exportable

Report = Mapping[str, Any]
RECORDED = 256
"""observations taken from a dataset for the parity certificate"""


@dataclass(frozen=True)
class Export:
    """Write a policy, or an adapter, as one file that runs without torch."""

    source: tyro.conf.Positional[Path]
    """a run, whose newest checkpoint is taken, or a policy folder"""
    out: Path = Path("policy.onnx")
    """ends in .onnx (for onnxruntime), .npz (for numpy alone), .c (C source, for any compiler), .pt2 (compiled for this
    machine and its torch) or .overlay (an adapter alone, for the exported file that it was trained on)"""
    data: str = ""
    """dataset whose observations the parity certificate uses, and whose quantiles the file states; without it
    observations are drawn"""
    camera_size: tuple[str, ...] = ()
    """NAME=HEIGHTxWIDTH of what the robot's camera gives; the file resizes it to what the policy sees"""
    eval: Path | None = None
    """ledger of an evaluation whose result goes into the file"""
    licence: str = ""
    """under which the policy may be used, such as CC-BY-4.0; it goes into the file"""
    precision: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """of the weights: smaller files whose actions move a little; .onnx takes all, .c bfloat16, which is faster there"""
    eta: Literal[0] | None = None
    """0: the chain without noise at its steps, so that adapters can choose all of the file's noise"""
    base: str = ""
    """of a .overlay: the exported file it belongs on, or a server's address; by default where training found it"""


@dataclass(frozen=True)
class Run:
    """Play an exported policy in an environment at a fixed rate and measure latency."""

    policy: tyro.conf.Positional[str]
    """file written by `noisepilot export`, or address of `noisepilot serve`, such as ws://127.0.0.1:8000"""
    env: EnvRef = field(default_factory=EnvRef)
    """empty: the one the policy was made for"""
    hz: float | None = None
    """control rate; by default the one the policy was made for"""
    episodes: int = 5
    steps: int | None = None
    """stop after this many control steps in all"""
    seed: int = 0
    """of the first episode; the next ones count up"""
    overlay: Path | None = None
    """adapter on top of the file, written by `noisepilot export` too"""
    backend: str = ""
    """what plays a file: onnxruntime, openvino or openvino-bfloat16 for .onnx, numpy for .npz; empty: the first of
    these"""
    trust: bool = False
    """run a .pt2 file, which is machine code of whoever wrote it"""
    gate: Path | None = None
    """JSON file of a safety gate's bounds and trips, see docs/loop.md"""
    mode: Literal["sync", "async", "rtc"] = "sync"
    """wait for every plan; plan beside control; or so that plans continue what is committed meanwhile"""
    execute: int | None = None
    """actions from one plan to the next; by default what the policy was made for, or what its horizon allows"""
    ensemble: float | None = None
    """temporal ensembling: older chunks weigh exp(m) times the next newer one, at m = ENSEMBLE"""
    controller_hz: float | None = None
    """rate of the commands, a multiple of the control rate; actions that are positions are joined by straight lines"""
    delay_ms: float = 0.0
    """inject so much delay from an observation to its chunk"""
    jitter_ms: float = 0.0
    """and evenly up to this much more"""
    drop: float = 0.0
    """chance that an observation is lost"""
    report: Path | None = None
    """HTML page to write: commands, seams, latencies"""
    token_file: Path | None = None
    """file with the word that the server wants"""
    json: bool = False
    """print JSON"""


def export(argv: Sequence[str]) -> int:
    """`noisepilot export`; returns the exit code."""
    config = parse(Export, argv, "noisepilot export")
    from ..deploy.export import export as write
    from ..deploy.graph import exportable
    from ..policies.storage import find_policy, load_policy
    from .ledger import Ledger

    if config.out.suffix == ".overlay":
        from .overlay_verb import export_overlay

        return export_overlay(config)
    if config.base:
        raise UserError(f"--base is for a path that ends in .overlay, and {config.out} holds its own")
    folder = find_policy(config.source)
    policy = _without_noise(config, exportable(load_policy(folder, device="cpu"), config.source))
    data = _load(config.data) if config.data else None
    out = write(
        policy,
        config.out,
        observations=None if data is None else recorded(data, policy),
        cameras=dict(map(_camera_size, config.camera_size)),
        quantiles=None if data is None else _quantiles(data, policy),
        provenance=provenance_of(folder, data),
        evaluation=Ledger.load(config.eval).summary() if config.eval else None,
        history=history(config, folder),
        precision=config.precision,
    )
    _say_exported(out)
    return 0


def run(argv: Sequence[str]) -> int:
    """`noisepilot run`; imports no torch. Returns the exit code."""
    config = parse(Run, argv, "noisepilot run")
    from ..deploy.runtime import Chunking, Delays, Gate, PolicyError, open_policy, run_loop
    from ..envs import make_core

    traces: list[dict[str, Any]] = []
    try:
        if Path(config.policy).suffix == ".pt2":
            from ..deploy.native import load

            policy = load(config.policy, trust=config.trust)
        else:
            token, backend = read_token(config.token_file), config.backend or None
            policy = open_policy(config.policy, token=token, overlay=config.overlay, backend=backend)
        ref = config.env.or_else(policy.spec.env, policy.spec.env_kwargs)
        env = make_core(ref.id, 1, **ref.kwargs)
        try:
            check_fit(policy.spec, env.spec)
            hz = policy.spec.control_hz if config.hz is None else config.hz
            if not 0 < hz < math.inf:
                raise UserError(f"the control rate is {hz:g} Hz: give a positive one with --hz")
            rate = hz if config.controller_hz is None else config.controller_hz
            report = run_loop(
                policy,
                env,
                hz=hz,
                episodes=config.episodes,
                steps=config.steps,
                seed=config.seed,
                gate=None if config.gate is None else Gate.load(config.gate, policy.spec, rate),
                chunking=Chunking(config.mode, config.execute, config.ensemble),
                delays=Delays(config.delay_ms, config.jitter_ms, config.drop),
                controller_hz=rate,
                traces=None if config.report is None else traces,
            )
        finally:
            env.close()
    except PolicyError as error:
        raise UserError(str(error)) from None
    print(json.dumps(report, indent=2) if config.json else "\n".join([*_table(report), *_lines(report)]))
    if config.report is not None:
        from .run_page import render

        atomic_write(config.report, render(report, traces, policy.spec, config.policy))
    return 0


def latency_line(report: Report) -> str:
    """Inference percentiles and deadline misses in one line."""
    ms = report["inference_ms"]
    times = "  ".join(f"{name} {ms[name]:.2f}" for name in ("p50", "p95", "p99", "max")) if ms["count"] else "none"
    misses = f"deadline misses {report['misses']}/{report['steps']} at {report['hz']:.1f} Hz"
    late = f" (by at most {report['late_ms_max']:.1f} ms)" if report["misses"] else ""
    held = f"   actions held {report['held']}" if report["held"] else ""
    return f"inference ms  {times}   {misses}{late}{held}"


def _lines(report: Report) -> list[str]:
    gate = [gate_line(report["gate"])] if "gate" in report else []
    return [mode_line(report), latency_line(report), *gate]


def mode_line(report: Report) -> str:
    """How chunks were played, in one line."""
    words = [f"mode {report['mode']}", f"execute {report['execute']}", f"seams {report['seams']}"]
    words += [f"starved {report['starved']}", f"consumed at most {report['consumed_max']}"]
    words += [f"refused {report['refused']} ({report['fault']})"] if report["refused"] else []
    jerk = [(key, value) for key, value in report["jerk"].items() if value is not None]
    words += ["jerk " + ", ".join(f"{value:.3g} {key if key == 'inside' else 'at seams'}" for key, value in jerk)]
    return "   ".join(words if jerk else words[:-1])


def gate_line(gate: Report) -> str:
    """What a gate did, in one line."""
    events = "   ".join(f"{event} {count}" for event, count in gate["events"].items()) or "passed everything"
    latched = f"   latched by {gate['latched']}" if gate["latched"] else ""
    return f"gate  {events}   of {gate['steps']} steps{latched}"


def _table(report: Report) -> list[str]:
    lines = [f"{'seed':>6}  {'return':>10}  {'steps':>6}  success"]
    for episode in report["episodes"]:
        success = {None: "-", 0.0: "no"}.get(episode["success"], "yes")
        returned = "lost" if episode["return"] is None else f"{episode['return']:.4g}"
        lines.append(f"{episode['seed']:>6}  {returned:>10}  {episode['length']:>6}  {success}")
    return lines


def _without_noise(config: Export, policy: Exportable) -> Exportable:
    from ..policies.policy import Policy

    if config.eta is None:
        return policy
    if not isinstance(policy, Policy):
        raise UserError(f"--eta 0 is for plain policies, and {config.source} holds a {type(policy).__name__}")
    return policy.with_sampler(policy.config.sampler.without_noise())


def _camera_size(text: str) -> tuple[str, tuple[int, int]]:
    found = re.fullmatch(r"(.+)=(\d+)x(\d+)", text)
    if not found:
        raise UserError(f"--camera-size '{text}' is not NAME=HEIGHTxWIDTH, such as images.front=480x640")
    return found[1], (int(found[2]), int(found[3]))


def _say_exported(path: Path) -> None:
    from ..deploy import native
    from ..deploy.c_source import read_metadata
    from ..deploy.runtime import Policy

    readers = {".c": read_metadata, native.SUFFIX: lambda content: native.read_metadata(content, path.name)}
    metadata = readers.get(path.suffix, lambda content: Policy.from_bytes(content).metadata)(path.read_bytes())
    say_certificate(path, metadata["parity"])


def say_certificate(path: Path, parity: Report) -> None:
    """Size and certificate of what was written, in one or two lines."""
    from ..deploy.runtime.__main__ import file_size

    size, backend = file_size(path), parity["backend"]
    difference = f"{parity['max_relative_difference']:.1e} of the action range"
    origin = f"{parity['observations']} observations ({parity['source']})"
    print(f"{path}: {size}, {backend} within {difference} of torch over {origin}")
    if moved := parity.get("rounding"):
        mean, most = moved["mean_relative_difference"], moved["max_relative_difference"]
        print(f"rounding the weights before moved actions by {mean:.1e} of their range on average, {most:.1e} at most")


def _load(path: str) -> Episodes:
    from ..datasets.readers import load

    return load(path)


def recorded(episodes: Episodes, policy: Any) -> dict[str, Any]:
    """Observations of a dataset for a certificate, name -> (N, T, ...).

    Raises:
        UserError: for data that the policy does not fit.
    """
    import torch

    from ..datasets.chunks import Chunks

    policy.spec.check_data(episodes.obs_specs(), episodes.action_spec(), "the recorded observations")
    chunks = Chunks(episodes.observing(policy.spec.obs), policy.spec.horizon, policy.spec.n_obs_steps)
    rows = torch.linspace(0, len(chunks) - 1, min(RECORDED, len(chunks))).long()
    return dict(chunks.batch(rows).obs)


def _quantiles(episodes: Episodes, policy: Exportable) -> dict[str, dict[str, list[float]]]:
    from ..spec import split_pictures

    _, flat = split_pictures(policy.spec.obs)
    stats = {name: episodes.stats(f"observation.{name}") for name in flat}
    return {name: {"q01": s.q01.tolist(), "q99": s.q99.tolist()} for name, s in stats.items()}


def provenance_of(folder: Path, data: Episodes | None) -> dict[str, Any]:
    """Where a policy folder comes from, as JSON values."""
    from ..policies.storage import data_hash, read_config
    from .lineage import weights_hash
    from .run_folder import provenance

    hashes = {"data_hash": data_hash(folder), "parity_data_hash": data.hash() if data else ""}
    source = {"weights_sha256": weights_hash(folder), "provenance": read_config(folder).get("provenance", {})}
    return {**provenance(), **hashes, "source": source}


def history(config: Export, folder: Path) -> dict[str, Any]:
    """How a policy folder came to be, as JSON values."""
    from .lineage import parent, training

    return {"licence": config.licence or None, "training": training(folder), "parent": parent(folder)}


def check_fit(policy: Any, env: Any) -> None:
    """Refuse an environment whose arrays are not those of an exported policy."""
    ours = {name: array["shape"][1:] for name, array in policy.observations.items()}
    theirs = {name: array.shape for name, array in env.obs.items()}
    if not ours.items() <= theirs.items():
        raise UserError(f"policy (made for {policy.env or 'no known env'}) sees {ours}, {env.id} shows {theirs}")
    if policy.action["shape"][1:] != env.action.shape:
        raise UserError(f"policy acts in {policy.action['shape'][1:]}, {env.id} in {env.action.shape}")

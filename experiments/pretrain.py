"""Pre-training: behaviour cloning on demonstrations, with held-out episodes, checkpoints and resume."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..algos.bc import BC, BCState, denoising_loss
from ..datasets.checks import check
from ..datasets.chunks import Chunks
from ..datasets.episodes import OBS, Episodes
from ..datasets.readers import load
from ..datasets.validity import picture_fault
from ..errors import UserError, at_least
from ..policies.foreign.vision import load_resnet
from ..policies.matmul import use_fast_matmul
from ..policies.policy import ACTION, Policy, PolicyConfig
from ..policies.storage import default_device
from ..policies.vision.rgb import ResNetEncoder
from ..spec import PolicySpec, split_pictures
from .checkpoint import load_optimizer_state, optimizer_state, resume, write_checkpoint
from .env_ref import EnvRef
from .loggers import SinkName
from .reporter import Reporter
from .run_folder import RunFolder

SEEN = 256
"""held-out windows with pictures that the validation loss is measured on"""


@dataclass(frozen=True)
class Pretrain:
    """pretrain [RECIPE] [--kind KIND]: behaviour cloning; `noisepilot list` names recipes to start from.

    Kinds of policy: diffusion, flow, shortcut, meanflow, consistency. `--policy.network NAME` takes another network,
    mlp, transformer or unet, `--policy.encoder NAME` an encoder of pictures, resnet, vit or none, and shows its
    options.
    """

    data: str
    """demonstrations of any format, see docs/data.md"""
    out: str
    """run folder to write"""
    env: EnvRef = field(default_factory=EnvRef)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    bc: BC = field(default_factory=BC)
    seed: int = 0
    held_out: float = 0.05
    """share of the episodes kept for the validation loss"""
    log_every: int = 500
    """gradient steps"""
    checkpoint_every: int = 10_000
    """gradient steps"""
    loggers: tuple[SinkName, ...] = ()
    """mirrors of metrics.jsonl: tensorboard, wandb"""
    resume: bool = False
    """continue the run in `out` from its newest checkpoint; without one, start it from the beginning"""
    encoder_weights: str | None = None
    """file of torchvision's ResNet-18 that the encoder `resnet` begins with"""

    def __post_init__(self) -> None:
        at_least(0, self, "seed", "held_out")
        at_least(1, self, "log_every", "checkpoint_every")


def pretrain(config: Pretrain) -> RunFolder:
    """Run or resume; returns the run folder, whose checkpoints hold the averaged policy.

    Raises:
        UserError: for data or settings that cannot be trained on; nothing is written then.
    """
    episodes = load(config.data)
    parts = episodes.split(config.held_out, config.seed) if config.held_out > 0 else (episodes, None)
    training, data_hash = _Training(config, *parts), episodes.hash()
    del episodes, parts  # pictures are large, and what is trained on lies in the windows
    run, tree = resume(config, data_hash)
    if config.encoder_weights and tree is None:
        training.begin_from(config.encoder_weights)
    use_fast_matmul(tree["fast_matmul"] if tree else None)
    run = run or RunFolder.create(config.out, config, data_hash=data_hash)
    if tree:
        training.load(tree)
        run.truncate_metrics(training.state.step, key="grad_steps")
    total, since = config.bc.grad_steps, training.state.step
    with Reporter(run, "pretrain", total=total, unit="grad_steps", sinks=config.loggers, since=since) as report:
        training.run(run, report)
    return run


def build_policy(config: PolicyConfig, episodes: Episodes, env: EnvRef) -> Policy:
    """A fresh policy for these data, its normaliser fitted on them."""
    spec = data_spec(config, episodes, env)
    for name in split_pictures(spec.obs)[0]:
        if fault := picture_fault(episodes.data[OBS + name]):
            raise UserError(f"'{OBS}{name}' has {fault}")
    policy = Policy(config, spec)
    for name, key in ((ACTION, ACTION), *((name, OBS + name) for name in policy.flat_obs)):
        stats = episodes.stats(key)
        policy.normalizer.fit(name, stats.min, stats.max)
    return policy.to(default_device())


def data_spec(config: PolicyConfig, episodes: Episodes, env: EnvRef) -> PolicySpec:
    """Observations and actions as the environment names them, or as the data do where there is no environment."""
    if not env.id:
        return config.spec(episodes.obs_specs(), episodes.action_spec(), float(episodes.attrs.get("fps", 0.0)))
    shown = env.spec()
    for fault in check(episodes, replace(shown, obs=config.seen(shown.obs))):
        if fault.level == "error":
            raise UserError(f"the data do not fit {env.id}: {fault.key}: {fault.message}")
    # What the data know of their numbers and the environment does not say travels with the policy.
    spec, recorded = config.spec_for(shown), episodes.obs_specs()
    obs = {name: array.filled(recorded[name]) for name, array in spec.obs.items()}
    return replace(spec, obs=obs, action=spec.action.filled(episodes.action_spec()))


class _Training:
    """The state of one pre-training and its loop."""

    def __init__(self, config: Pretrain, train: Episodes, held_out: Episodes | None) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        policy = build_policy(config.policy, train, config.env)
        train, held_out = train.observing(policy.spec.obs), held_out and held_out.observing(policy.spec.obs)
        window = policy.spec.horizon, policy.spec.n_obs_steps, policy.device
        options = {"pad": config.bc.pad, "past_actions": config.policy.past_actions}
        self.chunks = Chunks(train, *window, **options)
        self.held_out = Chunks(held_out, *window, **options) if held_out else None
        self.state: BCState = config.bc.init(policy)
        self.generator = torch.Generator(policy.device).manual_seed(config.seed)
        self.losses: list[Tensor] = []  # since the last line of metrics
        self.wall_s = 0.0

    def begin_from(self, weights: str) -> None:
        """Fill every ResNet-18 of the encoder."""
        policy = self.state.policy
        if not isinstance(policy.network.encoder, ResNetEncoder):
            raise UserError("--encoder-weights fills a ResNet-18, this policy has none: add --policy.encoder resnet")
        for network in policy.network.encoder.backbones:
            load_resnet(network, weights)
        self.state = self.config.bc.init(policy)

    def run(self, run: RunFolder, report: Reporter) -> None:
        """Train to the end, logging and saving on the way."""
        config, state = self.config, self.state
        started = time.perf_counter() - self.wall_s
        while state.step < config.bc.grad_steps:
            batch = self.chunks.sample(config.bc.batch, self.generator)
            self.losses.append(config.bc.update(state, dict(batch.obs), batch.action, self.generator))
            last = state.step == config.bc.grad_steps
            if state.step % config.log_every == 0 or last:
                self.wall_s = time.perf_counter() - started
                report(self.metrics())
                self.losses.clear()
            if state.step % config.checkpoint_every == 0 or last:
                self.wall_s = time.perf_counter() - started
                write_checkpoint(run, state.step, self.state.averaged(), self.tree())

    def metrics(self) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        loss = float(torch.stack(self.losses).mean())
        if not math.isfinite(loss):
            raise UserError("the loss is not finite: lower --bc.lr, or look at `noisepilot data check`")
        samples = self.state.step * self.config.bc.batch
        return {
            "grad_steps": self.state.step,
            "wall_s": self.wall_s,
            "train/loss": loss,
            "eval/loss": self.validation_loss(),
            "train/learning_rate": self.config.bc.learning_rate(self.state.step - 1),
            "time/fps": samples / max(self.wall_s, 1e-9),
        }

    @torch.no_grad()
    def validation_loss(self, batch: int = 1_000) -> float | None:
        """Loss of the averaged policy on held-out windows, under the same noise every time.

        On fewer windows where pictures are encoded: they pass through the encoder at once.
        """
        if self.held_out is None:
            return None
        generator = torch.Generator(self.chunks.device).manual_seed(self.config.seed)
        sample = self.held_out.sample(SEEN if self.state.policy.pictures else batch, generator)
        return float(denoising_loss(self.state.averaged(), dict(sample.obs), sample.action, generator).mean())

    def tree(self) -> dict[str, Any]:
        """Everything that a bit-equal continuation needs."""
        return {
            "network": self.state.policy.network.state_dict(),
            "average": self.state.average.state_dict(),
            "optimizer": optimizer_state(self.state.optimizer),
            "generator": self.generator.get_state(),
            "losses": self.losses,
            "step": self.state.step,
            "wall_s": self.wall_s,
            "fast_matmul": torch.get_float32_matmul_precision() == "medium",
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Continue from what `tree` returned."""
        self.state.policy.network.load_state_dict(tree["network"])
        self.state.average.load_state_dict(tree["average"])
        load_optimizer_state(self.state.optimizer, tree["optimizer"])
        self.generator.set_state(tree["generator"])
        self.losses = [loss.to(self.chunks.device) for loss in tree["losses"]]
        self.state.step, self.wall_s = tree["step"], tree["wall_s"]

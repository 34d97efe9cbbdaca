"""Checkpoints of real-stanford/diffusion_policy: its low-dimensional U-Net and transformer policies.

A checkpoint (`latest.ckpt`) holds the configuration `cfg`, and by `state_dicts` the policy, its average `ema_model`
and the optimiser. The policy's normaliser lies inside its weights; the horizon begins at the oldest observation.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import UserError
from ...spec import ArraySpec, EnvSpec
from ..policy import ACTION, Policy, PolicyConfig
from ..transformer import Transformer
from ..unet import UNet
from .checkpoint import read_checkpoint
from .imported import Imported, describe, load_exactly, spec_of, tensors_in
from .omegaconf import read_config
from .schedule import DIFFERS, diffusion, keeps_eps
from .transformer import rename_transformer
from .unet import unet_of, unet_weights

UNET, TRANSFORMER = "DiffusionUnetLowdimPolicy", "DiffusionTransformerLowdimPolicy"
PARTS = ("ema_model", "model")
"""of `state_dicts`, the best first"""
STATE = "state"
"""our name of its one observation"""
USED = {
    *("_target_", "model", "noise_scheduler", "horizon", "obs_dim", "action_dim", "n_action_steps", "n_obs_steps"),
    *("num_inference_steps", "obs_as_local_cond", "obs_as_global_cond", "obs_as_cond", "pred_action_steps_only"),
    *("oa_step_convention", "eta", "use_clipped_model_output"),
}
"""settings of a policy that are looked at"""


def open_checkpoint(path: Path) -> DiffusionPolicy | None:
    """The policy that a file holds; None for a file that another tool wrote.

    Raises:
        UserError: for a file that cannot be read, or holds another policy of Diffusion Policy.
    """
    if not zipfile.is_zipfile(path) or path.suffix == ".npz":
        return None
    found = read_checkpoint(path)
    if not {"cfg", "state_dicts"} <= found.keys():
        return None
    states = found["state_dicts"] if isinstance(found["state_dicts"], dict) else {}
    part = next((name for name in PARTS if isinstance(states.get(name), dict)), None)
    if part is None:
        raise UserError(f"{path} has no weights named {' or '.join(PARTS)}: give a checkpoint of a training")
    try:
        config = read_config(found["cfg"]).get("policy")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    config = config if isinstance(config, dict) else {}
    kind = str(config.get("_target_", "nothing")).rpartition(".")[2]
    if kind not in (UNET, TRANSFORMER):
        raise UserError(f"{path} holds a {kind}: of Diffusion Policy, {UNET} and {TRANSFORMER} are imported")
    left = {f"state_dicts/{name}": tensors_in(value) for name, value in states.items() if name != part}
    weights = {name: value for name, value in states[part].items() if isinstance(value, Tensor)}
    return DiffusionPolicy(path, kind, config, weights, part, left)


@dataclass(frozen=True)
class DiffusionPolicy:
    """One checkpoint."""

    path: Path
    kind: str
    config: Mapping[str, Any]
    """`cfg.policy`"""
    weights: Mapping[str, Tensor]
    """of the policy, its normaliser among them"""
    part: str
    left: Mapping[str, int]

    def load(self, env: EnvSpec | None) -> Imported:
        """The policy; see `Importable`."""
        try:
            return self._load(env)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None

    def _load(self, env: EnvSpec | None) -> Imported:
        named, network = self._network()
        config = self._policy_config(network)
        obs, action = (ArraySpec((len(self._scale(name)),)) for name in ("obs", ACTION))
        spec, names = spec_of(config, {STATE: obs}, action, env)
        policy = Policy(config, spec)
        load_exactly(policy.network, named)
        for theirs, ours in (("obs", names[STATE]), (ACTION, ACTION)):
            scale, offset = self._scale(theirs), self._parameter(f"normalizer.params_dict.{theirs}.offset")
            policy.normalizer.set(ours, (-offset.double() / scale.double()).numpy(), (1 / scale.double()).numpy())
        return Imported(policy, f"Diffusion Policy, {self.path.name}, {self.part}", self._said(policy), self.left)

    def _network(self) -> tuple[dict[str, Tensor], UNet | Transformer]:
        weights = {k.removeprefix("model."): v for k, v in self.weights.items() if k.startswith("model.")}
        model = self._part_of("model")
        if self.kind == UNET:
            self._require_condition("obs_as_global_cond", "obs_as_local_cond")
            named = unet_weights(weights, "diffusion_policy")
            return named, unet_of(named, self._whole(model, "n_groups", 8))
        self._require_condition("obs_as_cond")
        named = rename_transformer(weights)
        if "embed.weight" not in named:
            raise UserError(f"holds no transformer, but {', '.join(sorted(named)[:3]) or 'nothing'}: give another file")
        network = Transformer(
            layers=_count(named, "blocks"),
            heads=self._whole(model, "n_head"),
            width=named["embed.weight"].shape[0],
            condition_layers=_count(named, r"condition\.encoder") if "condition.encoder.0.norm.weight" in named else 0,
            causal="mask" in weights,
            first="oldest",
            dropout=float(model.get("p_drop_attn", 0.1)),
            token_dropout=float(model.get("p_drop_emb", 0.1)),
        )
        return named, network

    def _require_condition(self, *names: str) -> None:
        if not any(self.config.get(name) for name in names):
            raise UserError(f"sets none of {', '.join(names)}: observations inside of the chunk are not imported")

    def _policy_config(self, network: UNet | Transformer) -> PolicyConfig:
        """Of the executed part: what lies before it are past actions."""
        config, scheduler = self.config, self._part_of("noise_scheduler")
        eta = config.get("eta")
        path, sampler, predicts = diffusion(
            self._scheduler,
            scheduler,
            self._whole(config, "num_inference_steps", scheduler.get("num_train_timesteps")),
            float(eta) if isinstance(eta, (int, float)) else 0.0,
        )
        observed, executed = self._whole(config, "n_obs_steps"), self._whole(config, "n_action_steps")
        whole, past = self._whole(config, "horizon"), observed - 1
        if self.kind == UNET and not config.get("oa_step_convention"):
            past = observed
        if config.get("pred_action_steps_only"):
            whole, past = executed, 0
        if whole - past < executed:
            raise UserError(f"executes actions {past} to {past + executed} of a horizon of {whole}: give another file")
        plain = PolicyConfig(network, path, sampler, predicts, past_actions=past)
        return replace(plain, horizon=whole - past, n_action_steps=executed, n_obs_steps=observed)

    @property
    def _scheduler(self) -> str:
        return "DDIM" if "DDIM" in str(self._part_of("noise_scheduler").get("_target_")) else "DDPM"

    def _part_of(self, name: str) -> Mapping[str, Any]:
        value = self.config.get(name)
        return value if isinstance(value, dict) else {}

    def _scale(self, name: str) -> Tensor:
        scale = self._parameter(f"normalizer.params_dict.{name}.scale")
        if scale.dim() != 1 or not (scale != 0).all():
            raise UserError(f"its normaliser of '{name}' has no scale for every number: give another file")
        return scale

    def _parameter(self, name: str) -> Tensor:
        if name not in self.weights:
            raise UserError(f"lacks {name}: give a checkpoint of a training that set its normaliser")
        return self.weights[name]

    def _whole(self, config: Mapping[str, Any], name: str, default: int | None = None) -> int:
        value = default if config.get(name) is None else config[name]
        if type(value) is not int:
            raise UserError(f"does not say {name} in its configuration, but {value!r}: resolve it and save it anew")
        return value

    def _said(self, policy: Policy) -> list[str]:
        lines = [
            f"Diffusion Policy, {self.kind}: weights of {self.part}, their normaliser inside",
            *describe(policy.config, self._scheduler, "cfg", self.config.keys() - USED),
        ]
        recomputed = self.config.get("use_clipped_model_output")
        return [*lines, DIFFERS] if keeps_eps(self._scheduler, policy.config.sampler) and not recomputed else lines


def _count(named: Mapping[str, Tensor], part: str) -> int:
    return len({m[1] for name in named if (m := re.match(rf"{part}\.(\d+)\.", name))})

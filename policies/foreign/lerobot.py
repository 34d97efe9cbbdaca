"""Folders of huggingface/lerobot's diffusion policy: `config.json` and `model.safetensors`, with or without cameras.

There the U-Net sees one time after the other, each with its state, pictures and environment's state; here one
observation after the other, each with all its times. The first layers' columns are put in our order.
Shapes: T observations, F features, E time embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import UserError
from ...spec import ArraySpec, EnvSpec
from ..policy import ACTION, Policy, PolicyConfig
from ..vision import ResNet
from .imported import Imported, columns_by_time, describe, load_exactly, spec_of
from .lerobot_stats import BUFFERS, Stats, read_json, read_stats, read_tensors
from .schedule import DIFFERS, diffusion, keeps_eps
from .unet import unet_of, unet_weights
from .vision import has_batch_norm, rgb_encoder_weights

OBS = "observation."
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
UNET, CAMERAS = "diffusion.unet.", "diffusion.rgb_encoder."
USED = {
    *("type", "input_features", "output_features", "normalization_mapping", "n_obs_steps", "horizon", "n_action_steps"),
    *("vision_backbone", "resize_shape", "crop_shape", "use_group_norm", "spatial_softmax_num_keypoints"),
    *("use_separate_rgb_encoder_per_camera", "down_dims", "kernel_size", "n_groups", "diffusion_step_embed_dim"),
    *("use_film_scale_modulation", "noise_scheduler_type", "num_train_timesteps", "beta_schedule", "prediction_type"),
    *("clip_sample", "clip_sample_range", "num_inference_steps"),
}
"""settings that are looked at, or show in the weights"""


def open_folder(path: Path) -> LeRobot | None:
    """The policy in a folder, or in the folder of its weights; None for a file that another tool wrote.

    Raises:
        UserError: for a folder that holds something else, or a policy of another type.
    """
    folder = path.parent if path.name in ("config.json", "model.safetensors") else path
    if not folder.is_dir():
        return None
    config = read_json(folder / "config.json")
    if "spec" in config:
        raise UserError(f"{folder} is a policy of noisepilot already: use it as it is")
    if config.get("type") != "diffusion" or not isinstance(config.get("input_features"), dict):
        kind = config.get("type", "older than 2.0")
        raise UserError(f"{folder} holds a LeRobot policy, {kind}: those of type diffusion are imported")
    return LeRobot(folder, config, read_tensors(folder / "model.safetensors"))


@dataclass(frozen=True)
class LeRobot:
    """One folder."""

    folder: Path
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def load(self, env: EnvSpec | None) -> Imported:
        """The policy; see `Importable`."""
        try:
            return self._load(env)
        except UserError as error:
            raise UserError(f"{self.folder}: {error}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.folder / 'config.json'} does not describe a policy ({error!r}): copy it again"
            ) from None

    def _load(self, env: EnvSpec | None) -> Imported:
        shapes = self._shapes()
        stats = read_stats(self.folder, self.config, self.weights, [*shapes, ACTION])
        named = unet_weights(self._part(UNET), "lerobot")
        config = self._policy_config(named, stats, self._cameras(shapes))
        keys = self._our_order(shapes)
        obs = {_our_name(key, self._kind(key) == "VISUAL"): ArraySpec(shapes[key]) for key in keys}
        spec, names = spec_of(config, obs, ArraySpec(self._action()), env)
        policy = Policy(config, spec)
        self._put_in_order(named, policy, shapes)
        load_exactly(policy.network, named | self._encoder_weights(policy))
        for key, theirs in zip(keys, obs, strict=True):
            if names[theirs] in policy.flat_obs:
                self._normalise(policy, names[theirs], *stats.scale(key, self._kind(key)))
        self._normalise(policy, ACTION, *stats.scale(ACTION, "ACTION", output=True))
        return Imported(policy, f"LeRobot, {self.folder.name}", self._said(policy, stats), self._left())

    # What there is

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """What the network sees at one time, in its order; pictures as (H, W, C)."""
        features = self.config["input_features"]
        if STATE not in features:
            raise UserError(f"observes no {STATE}: give another folder")
        cameras = [key for key, feature in features.items() if feature.get("type") == "VISUAL"]
        order = [STATE, *cameras, *([ENVIRONMENT] if ENVIRONMENT in features else [])]
        shapes = {key: tuple(features[key]["shape"]) for key in order}
        return {k: (*s[1:], s[0]) if k in cameras else s for k, s in shapes.items()}

    def _cameras(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        return [key for key in shapes if self._kind(key) == "VISUAL"]

    def _our_order(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        return sorted(shapes, key=lambda key: self._kind(key) != "VISUAL")

    def _kind(self, key: str) -> str:
        return self.config["input_features"][key]["type"]

    def _action(self) -> tuple[int, ...]:
        features = self.config.get("output_features") or {}
        if list(features) != [ACTION]:
            raise UserError(f"puts out {list(features)}, not one action: give another folder")
        return tuple(features[ACTION]["shape"])

    def _part(self, start: str) -> dict[str, Tensor]:
        return {name.removeprefix(start): value for name, value in self.weights.items() if name.startswith(start)}

    def _left(self) -> dict[str, int]:
        known = (UNET, CAMERAS, *BUFFERS)
        return dict(Counter(name.partition(".")[0] for name in self.weights if not name.startswith(known)))

    # What becomes of it

    def _policy_config(self, named: Mapping[str, Tensor], stats: Stats, cameras: Sequence[str]) -> PolicyConfig:
        config = self.config
        whole, observed, executed = (config[name] for name in ("horizon", "n_obs_steps", "n_action_steps"))
        if whole - observed + 1 < executed:
            raise UserError(f"executes {executed} actions of a horizon of {whole} that begins {observed - 1} ago")
        kind, steps = config.get("noise_scheduler_type", "DDPM"), config.get("num_inference_steps")
        path, sampler, predicts = diffusion(kind, config, steps)
        network, past = unet_of(named, config.get("n_groups", 8)), observed - 1
        plain = PolicyConfig(network, path, sampler, predicts, past_actions=past, n_obs_steps=observed)
        encoder = self._encoder(stats, cameras) if cameras else None
        return replace(plain, horizon=whole - past, n_action_steps=executed, encoder=encoder)

    def _encoder(self, stats: Stats, cameras: Sequence[str]) -> ResNet:
        """Of all cameras: they share one mean and deviation of colours."""
        config, weights = self.config, self._part(CAMERAS)
        if config.get("vision_backbone", "resnet18") != "resnet18" or config.get("resize_shape"):
            raise UserError(
                f"sees by {config.get('vision_backbone')}, pictures resized to {config.get('resize_shape')}: "
                "resnet18 without resizing is imported"
            )
        scales = {key: tuple(v.reshape(-1) for v in stats.scale(key, "VISUAL")) for key in cameras}
        mean, std = (np.broadcast_to(v, 3) for v in scales[cameras[0]])
        if any(not np.allclose((mean, std), scale, rtol=0, atol=1e-6) for scale in scales.values()):
            raise UserError(f"normalises the colours of {', '.join(cameras)} differently: one mean and std is imported")
        stem = next((value for name, value in weights.items() if name.endswith("backbone.0.weight")), None)
        if stem is None:
            raise UserError(f"lacks {CAMERAS}*: copy the whole folder again")
        crop = config.get("crop_shape")
        return ResNet(
            stem.shape[0],
            config.get("spatial_softmax_num_keypoints", 32),
            (crop[0], crop[1]) if crop else None,
            self._separate,
            "folded" if has_batch_norm(weights) else "group",
            (float(mean[0]), float(mean[1]), float(mean[2])),
            (float(std[0]), float(std[1]), float(std[2])),
        )

    def _encoder_weights(self, policy: Policy) -> dict[str, Tensor]:
        if policy.network.encoder is None:
            return {}
        parts = [f"{CAMERAS}{i}." for i in range(len(policy.pictures))] if self._separate else [CAMERAS]
        return {
            f"encoder.networks.{i}.{name}": value
            for i, part in enumerate(parts)
            for name, value in rgb_encoder_weights(self._part(part)).items()
        }

    @property
    def _separate(self) -> bool:
        return f"{CAMERAS}0.out.weight" in self.weights

    def _put_in_order(self, named: dict[str, Tensor], policy: Policy, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Columns of all layers that see the observation."""
        length = dict(zip(self._our_order(shapes), policy.sizes.obs, strict=True))
        times, time_dim = policy.spec.n_obs_steps, policy.network.time_dim
        columns = columns_by_time([(key, length[key]) for key in shapes], list(length.items()), times)
        for name in [name for name in named if name.endswith("film.1.weight")]:
            seen = named[name][:, time_dim:]
            if seen.shape[1] == len(columns):  # else loading says what does not fit
                named[name] = named[name].clone()
                named[name][:, time_dim + columns] = seen

    def _normalise(self, policy: Policy, name: str, center: np.ndarray, half: np.ndarray) -> None:
        shape = policy.spec.action.shape if name == ACTION else policy.spec.obs[name].shape
        try:
            policy.normalizer.set(name, np.broadcast_to(center, shape).copy(), np.broadcast_to(half, shape).copy())
        except ValueError:
            raise UserError(f"has statistics of shape {center.shape} for '{name}' of shape {shape}") from None

    def _said(self, policy: Policy, stats: Stats) -> list[str]:
        kind = self.config.get("noise_scheduler_type", "DDPM")
        modes = ", ".join(f"{what} {mode}" for what, mode in stats.modes.items())
        lines = [
            f"LeRobot, diffusion: weights of {self.folder.name}, normalised by {modes}",
            *describe(policy.config, kind, "config.json", self.config.keys() - USED),
        ]
        return [*lines, DIFFERS] if keeps_eps(kind, policy.config.sampler) else lines


def _our_name(key: str, camera: bool) -> str:
    name = key.removeprefix(OBS)
    known = name == "image" or name.startswith("images.")
    return f"images.{name}" if camera and not known else name

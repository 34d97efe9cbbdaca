"""Files as other tools write them, around the weights of parity fixtures."""

from __future__ import annotations

import json
import sys
import types
from collections import OrderedDict

import numpy as np
import safetensors.torch
import torch

from ..parity import Fixture

POLICIES = "diffusion_policy.policy"
UNET = f"{POLICIES}.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy"
TRANSFORMER = f"{POLICIES}.diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy"
DDPM = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": 100,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}


def official(f: Fixture) -> dict[str, torch.Tensor]:
    names = [k for k in f.arrays if k.startswith("w.net.")]
    return {k.removeprefix("w.net."): f.tensor(k, torch.float32) for k in names}


def checkpoint(path, tensors, **beside):
    """A file of DPPO or ReinFlow: parts of state dicts, named `part/name` here."""
    parts: dict[str, OrderedDict] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, OrderedDict())[rest] = torch.as_tensor(value)
    torch.save({**beside, **parts}, path)
    return path


def weights_of(f: Fixture, part: str, prefix: str = "ema/network.") -> dict[str, np.ndarray]:
    """A network's arrays as those of a checkpoint of DPPO or ReinFlow."""
    start = f"w.{part}."
    return {prefix + k.removeprefix(start): v for k, v in f.arrays.items() if k.startswith(start)}


class _Omega:
    """Classes of OmegaConf's names and state, for a pickle to name."""

    def __init__(self, monkeypatch):
        self.kinds = {}
        monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
        for module, name in (("base", "Metadata"), ("dictconfig", "DictConfig"), ("listconfig", "ListConfig")):
            self._add(monkeypatch, module, name)
        self._add(monkeypatch, "nodes", "AnyNode")

    def _add(self, monkeypatch, module, name):
        path = f"omegaconf.{module}"
        found = types.ModuleType(path)
        self.kinds[name] = type(name, (), {"__module__": path})
        setattr(found, name, self.kinds[name])
        monkeypatch.setitem(sys.modules, path, found)

    def __call__(self, value, parent=None):
        kind = {dict: "DictConfig", list: "ListConfig"}.get(type(value), "AnyNode")
        node = self.kinds[kind]()
        node._metadata, node._parent = self.kinds["Metadata"](), parent
        if isinstance(value, dict):
            node._content = {k: self(v, node) for k, v in value.items()}
        elif isinstance(value, list):
            node._content = [self(v, node) for v in value]
        else:
            node._val = value
        return node


def workspace(
    monkeypatch,
    path,
    policy: dict,
    weights,
    obs_dim: int,
    action_dim: int,
    *,
    parts=("model", "ema_model"),
    horizon: int = 16,
):
    """A checkpoint of Diffusion Policy; the last of `parts` has these weights, the others have them doubled."""
    rng = np.random.default_rng(0)
    normalizer = {}
    for name, dim in (("obs", obs_dim), ("action", action_dim)):
        low, span = rng.normal(size=dim), rng.uniform(0.5, 3, dim)
        start = f"normalizer.params_dict.{name}"
        normalizer[f"{start}.scale"] = torch.tensor(2 / span, dtype=torch.float32)
        normalizer[f"{start}.offset"] = torch.tensor(-1 - 2 * low / span, dtype=torch.float32)
        normalizer[f"{start}.input_stats.min"] = torch.tensor(low, dtype=torch.float32)
    state = {"_dummy_variable": torch.empty(0), "mask_generator._dummy_variable": torch.empty(0)}
    state |= {f"model.{k}": v for k, v in weights.items()} | normalizer
    double = {k: 2 * v for k, v in state.items()}
    states = {part: state if part == parts[-1] else double for part in parts}
    states["optimizer"] = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
    cfg = _Omega(monkeypatch)({"name": "train", "horizon": horizon, "policy": policy})
    torch.save({"cfg": cfg, "state_dicts": states, "pickles": {"epoch": b"\x80\x04K\x03."}}, path)
    return path, normalizer


def unet_settings(f: Fixture, **changes):
    return {
        "_target_": UNET,
        "model": {"n_groups": f.set("n_groups"), "down_dims": list(f.set("down_dims"))},
        "noise_scheduler": DDPM,
        "horizon": 16,
        "n_obs_steps": 2,
        "n_action_steps": 8,
        "num_inference_steps": 100,
        "obs_as_local_cond": False,
        "obs_as_global_cond": True,
        "pred_action_steps_only": False,
        "oa_step_convention": True,
        **changes,
    }


def lerobot_config(f: Fixture, features: dict[str, tuple[str, list[int]]], **changes):
    return {
        "type": "diffusion",
        "device": "cuda",
        "input_features": {k: {"type": kind, "shape": shape} for k, (kind, shape) in features.items()},
        "output_features": {"action": {"type": "ACTION", "shape": [f.set("Da")]}},
        "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"},
        "n_obs_steps": 2,
        "horizon": 16,
        "n_action_steps": 8,
        "vision_backbone": "resnet18",
        "crop_shape": [84, 84],
        "use_group_norm": True,
        "spatial_softmax_num_keypoints": 8,
        "use_separate_rgb_encoder_per_camera": False,
        "n_groups": f.set("n_groups"),
        "noise_scheduler_type": "DDPM",
        "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "num_inference_steps": None,
        **changes,
    }


def lerobot_folder(folder, config, weights, stats, *, beside=False):
    """Statistics, feature -> name -> values, as buffers among the weights or, `beside` them, in the file of a step."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {k: v.contiguous().clone() for k, v in weights.items()}
    named = {(k, s): torch.tensor(v, dtype=torch.float32) for k, both in stats.items() for s, v in both.items()}
    if beside:
        values = {f"{key}.{statistic}": value for (key, statistic), value in named.items()}
        safetensors.torch.save_file(values, folder / "policy_preprocessor_step_3_normalizer_processor.safetensors")
        steps = [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": "to_batch_processor", "config": {}},
            {"registry_name": "device_processor", "config": {"device": "cuda"}},
            {
                "registry_name": "normalizer_processor",
                "config": {"eps": 1e-8, "norm_map": config["normalization_mapping"]},
                "state_file": "policy_preprocessor_step_3_normalizer_processor.safetensors",
            },
        ]
        (folder / "policy_preprocessor.json").write_text(json.dumps({"name": "policy_preprocessor", "steps": steps}))
    else:
        for (key, statistic), value in named.items():
            start = "unnormalize_outputs" if key == "action" else "normalize_inputs"
            tensors[f"{start}.buffer_{key.replace('.', '_')}.{statistic}"] = value
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder

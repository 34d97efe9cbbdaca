"""The sizes of an official policy, read off the shapes of its weights under our names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from ...errors import UserError
from ...spec import ArraySpec, split_pictures
from ..network import MLP
from ..networks import NETWORKS, Network
from ..policy import Policy, PolicyConfig
from ..unet import UNet
from ..vision import ViT
from .dppo import Official
from .dppo_pictures import check_pictures, encoder_of, features_of, has_encoder
from .unet import unet_of

Sized = TypeVar("Sized", MLP, UNet)
Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shown:
    """What the weights of a network show."""

    network: Network
    features: int
    """numbers that it sees of an observation"""
    horizon: int | None
    """None: works for any"""


@dataclass(frozen=True)
class Kind:
    """One kind of official network."""

    mark: str
    """a weight that no other kind has"""
    read: Callable[[Named, PolicyConfig, int], Shown]
    """of weights under our names, the configuration and the length of an action"""
    shown: tuple[str, ...]
    """fields that are read off"""
    hidden: tuple[str, ...]
    """fields that show in no weight"""


def of_kind(config: PolicyConfig, weights: Official) -> PolicyConfig:
    """The configuration with a network and an encoder of the kinds that these weights are of; others stay."""
    name = _kind(weights.network)
    if name and not isinstance(config.network, type(NETWORKS[name])):
        config = replace(config, network=replace(NETWORKS[name], step_size=config.network.step_size))
    if not has_encoder(weights.network):
        return replace(config, encoder=None)
    return config if isinstance(config.encoder, ViT) else replace(config, encoder=ViT())


def sized(config: PolicyConfig, weights: Official, obs: Mapping[str, ArraySpec], action_dim: int) -> PolicyConfig:
    """The configuration with the kind, sizes, horizon and history of these weights; the rest stays.

    Args:
        config: says what weights do not show.
        weights: as read.
        obs: the observations of the environment.
        action_dim: length of its actions.

    Raises:
        UserError: for weights of no such network, of other observations or actions, or of another kind.
    """
    try:
        return _sized(of_kind(config, weights), weights.network, obs, action_dim)
    except UserError as error:
        raise UserError(f"{weights.path}: {error}") from None
    except (IndexError, KeyError) as error:
        raise UserError(f"{weights.path} holds a part of a network alone ({error}): copy it again") from None


def _sized(config: PolicyConfig, named: Named, obs: Mapping[str, ArraySpec], action_dim: int) -> PolicyConfig:
    for pattern, what in _REFUSED:
        if any(re.match(pattern, name) for name in named):
            raise UserError(f"holds {what}, which has no equal here: give another checkpoint")
    name = _kind(named)
    if not name:
        groups = sorted({name.partition(".")[0] for name in named})
        raise UserError(f"holds no denoising MLP or U-Net, but {', '.join(groups[:5])}: only those are imported")
    pictures, states = split_pictures(config.seen(obs))
    if not states:
        raise UserError(f"sees a state, and there is none beside {', '.join(pictures)}: choose another environment")
    encoder = encoder_of(named, config.encoder) if isinstance(config.encoder, ViT) else None
    shown = KINDS[name].read(named, config, action_dim)
    state = shown.features - (features_of(named, encoder) if encoder else 0)
    times = _parts(state, sum(array.dim for array in states.values()), "state", _OBSERVE)
    check_pictures(named, encoder, pictures, times)
    horizon = shown.horizon or config.horizon
    executed = min(config.n_action_steps, horizon)
    config = replace(config, network=shown.network, encoder=encoder, n_obs_steps=times)
    return replace(config, horizon=horizon, n_action_steps=executed)


def said(policy: Policy) -> list[str]:
    """What was read off the weights of a policy, what was not, and in which order it takes observations."""
    config, kind = policy.config, KINDS["unet" if isinstance(policy.config.network, UNet) else "mlp"]
    read, taken = ([_say(config.network, name) for name in names] for names in (kind.shown, kind.hidden))
    (taken if isinstance(config.network, UNet) else read).append(_say(config, "horizon"))
    read.append(_say(config, "n_obs_steps"))
    if isinstance(config.encoder, ViT):
        read.append(f"ViT of {config.encoder.patches} patches")
        read += [_say(config.encoder, name) for name in ("width", "depth", "features")]
        taken.append(_say(config.encoder, "heads"))
    sampler = config.sampler
    taken.append(f"{sampler.steps} steps of eta {sampler.eta:g}, {type(config.path).__name__}")
    taken.append(_say(config, "n_action_steps"))
    lines = [f"read off their shapes: {', '.join(read)}", f"taken from the recipe and options: {', '.join(taken)}"]
    for what, names in (("states", policy.flat_obs), ("cameras", policy.pictures)):
        if len(names) > 1:
            lines.append(f"{what} in this order: {', '.join(names)}")
    return lines


def _say(settings: object, name: str) -> str:
    return f"{name} {getattr(settings, name)}"


def _kind(named: Named) -> str:
    """Its name in `KINDS`; empty for something else."""
    return next((name for name, kind in KINDS.items() if kind.mark in named and _TIME in named), "")


def _mlp(named: Named, config: PolicyConfig, action_dim: int) -> Shown:
    shown = named[_TIME]
    network = _checked(config.network, MLP, shown.shape[0] < shown.shape[1])
    trunk, condition = _layers(named, "trunk"), _layers(named, "condition")
    time_dim = named["time_embedding.3.weight"].shape[0]
    chunk, width_in = trunk[-1][0], trunk[0][1]
    added = bool(condition) and network.step_size and width_in == chunk + time_dim
    network = replace(
        network,
        hidden=tuple(out for out, _ in trunk[:-1]),
        condition_hidden=tuple(out for out, _ in condition),
        time_dim=time_dim,
        residual=any(name.startswith("trunk.1.") for name in named),  # an activation stands there else
        combine="add" if added else "concat",
    )
    features = condition[0][1] if condition else width_in - chunk - time_dim
    return Shown(network, features, _parts(chunk, action_dim, "action", "choose its recipe"))


def _unet(named: Named, config: PolicyConfig, action_dim: int) -> Shown:
    network, condition = _checked(config.network, UNet, False), _layers(named, "condition")
    if (found := named["out.weight"].shape[0]) != action_dim:
        raise UserError(f"acts by {found} numbers, the environment's action has {action_dim}: choose its recipe")
    if condition and has_encoder(named):
        raise UserError(
            "holds a U-Net with both pictures and a network over the state (cond_mlp), which is not imported"
        )
    read = unet_of(named, network.groups, network.groups)
    read = replace(read, groupnorm_eps=network.groupnorm_eps, condition_hidden=tuple(out for out, _ in condition))
    first = named[f"down.0.first.film.{0 if read.film_layers == 3 else 1}.weight"]
    return Shown(read, condition[0][1] if condition else first.shape[1] - read.time_dim, None)


_OBSERVE = "name the states that it was made of, in its order (--policy.observe), or choose another environment"
_TIME = "time_embedding.1.weight"
KINDS = {
    "unet": Kind(
        "down.0.first.first.0.weight",
        _unet,
        ("down_dims", "kernel_size", "time_dim", "condition_hidden", "film_scale", "film_layers"),
        ("groups", "groupnorm_eps"),
    ),
    "mlp": Kind(
        "trunk.0.weight",
        _mlp,
        ("hidden", "condition_hidden", "time_dim", "residual", "combine"),
        ("activation",),
    ),
}
"""by their names in `NETWORKS`"""
_REFUSED = (
    (r"(td_emb|prop_emb|cond_embed)\.", "a shortcut network that sees pictures (ShortCutFlowViT)"),
    (r"encoder\.embeddings\.\d+\.\d+\.", "an encoder without spatial embedding (spatial_emb 0)"),
    (r"encoder\.transformer\.patch_embed\.", "an encoder that normalises patches (embed_norm)"),
    (r"(trunk|mlp_mean|vel_head|cond_mlp|cond_emb)\..*\bnorm_?\d", "an MLP with layer normalisation (use_layernorm)"),
)
"""patterns of our names, and what they mean"""


def _checked(network: Network, kind: type[Sized], sees_step: bool) -> Sized:
    assert isinstance(network, kind)  # `of_kind`
    if sees_step != network.step_size:
        raise UserError(
            f"holds a network that {'sees' if sees_step else 'does not see'} the step size: "
            f"import it with {'--kind shortcut' if sees_step else '--kind diffusion or --kind flow'}"
        )
    return network


def _layers(named: Named, part: str) -> list[tuple[int, int]]:
    """(out, in) of the linear layers of a perceptron, in order; `trunk.3.l2` comes after `trunk.3.l1`."""
    pattern = re.compile(rf"{part}\.(\d+)\.(?:l([12])\.)?weight")
    found = {(int(m[1]), int(m[2] or 0)): v for k, v in named.items() if (m := pattern.fullmatch(k)) and v.dim() == 2}
    return [(found[key].shape[0], found[key].shape[1]) for key in sorted(found)]


def _parts(total: int, dim: int, what: str, fix: str) -> int:
    if total < 1 or total % dim:
        raise UserError(f"{what}s have {total} numbers, no multiple of the environment's {what} of {dim}: {fix}")
    return total // dim

"""A policy: a network on a Gaussian path with a sampler, its normaliser inside.

Everything outside sees (observation, noise) -> action chunk. Inside, chunks are normalised to [-1, 1].
Shapes: B batch, T observations, F features, H horizon, L = H + past actions, A action dim, K steps, S stored
transitions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, at_least, unknown
from ..shapes import Float, Int
from ..spec import ArraySpec, EnvSpec, PolicySpec, split_pictures
from .action_prefix import ActionPrefix
from .denoiser import Denoiser, Sizes
from .module import ActorModule
from .network import MLP
from .networks import Network
from .normalizer import ACTION, Normalizer
from .objective import Consistency, Matching, MeanFlow, Shortcut
from .path import CosinePath, LinearPath, Predicts, VPPath, data_from_output, training_target
from .sampler import (
    Chain,
    Exploration,
    Sampler,
    Step,
    Stochastic,
    Transitions,
    clamp,
    denoise,
    normal_log_prob,
    sample_chain,
)
from .vision import Draws, Encoder, ResNet, ViT

_transitions = lru_cache(maxsize=64)(Transitions)
"""transitions compute their coefficients once, so those in use are kept"""


@dataclass(frozen=True)
class PolicyConfig:
    """What a policy is made of; sizes of observations and actions come from the environment or the data."""

    network: Network = field(default_factory=MLP)
    path: CosinePath | VPPath | LinearPath = field(default_factory=CosinePath)
    sampler: Sampler = field(default_factory=Sampler)
    predicts: Predicts = "eps"
    """what the network's output means"""
    objective: Matching | Shortcut | MeanFlow | Consistency = field(default_factory=Matching)
    """what the network is trained on"""
    horizon: int = 4
    n_action_steps: int = 4
    n_obs_steps: int = 1
    past_actions: int = 0
    """actions before the current one that the network denoises too, as those of Diffusion Policy and LeRobot do
    (n_obs_steps - 1); chains hold them behind the horizon, chunks leave them out"""
    max_prefix: int = 0
    """P: up to so many of a chunk's first actions may be committed already when it is made, see `action_prefix.py`;
    behaviour cloning and distillation then teach it every number of them. 0: none"""
    tuned_from: float = 0.0
    """time from which the tuned network acts; earlier steps belong to a frozen copy. Set by fine-tuning"""
    encoder: ViT | ResNet | None = None
    """what makes features of pictures; None: there are none"""
    observe: tuple[str, ...] | None = None
    """names of the observations that are seen, in this order, `state images.front`; None: all"""

    def spec(self, obs: Mapping[str, ArraySpec], action: ArraySpec, control_hz: float = 0.0) -> PolicySpec:
        """The policy's specification for these observations and actions."""
        return PolicySpec(
            self.seen(obs),
            action,
            self.horizon,
            self.n_action_steps,
            self.n_obs_steps,
            control_hz,
            max_prefix=self.max_prefix,
        )

    def seen(self, obs: Mapping[str, ArraySpec]) -> Mapping[str, ArraySpec]:
        """Those of the observations that the policy sees, in its order.

        Raises:
            UserError: for a name that is not among them, or none at all.
        """
        if self.observe is None:
            return obs
        for name in self.observe:
            if name not in obs:
                raise unknown("observation", name, obs)
        if not self.observe:
            raise UserError(f"policy.observe names nothing, so nothing would be seen: name some of {', '.join(obs)}")
        return {name: obs[name] for name in self.observe}

    def spec_for(self, env: EnvSpec) -> PolicySpec:
        """The policy's specification in an environment."""
        return replace(self.spec(env.obs, env.action, env.control_hz), env=env.id, env_kwargs=env.kwargs)

    def build(self, spec: PolicySpec) -> Policy:
        """The policy, with fresh weights."""
        return Policy(self, spec)


@dataclass(frozen=True)
class Context:
    """An encoded observation: made once per decision, shared by all its denoising steps."""

    features: Float[Tensor, "B F"]
    """the action prefix, features of pictures, then the other observations, normalised and flat; what critics see"""
    condition: Float[Tensor, "B C"]
    """what the network conditions on"""
    frozen: Float[Tensor, "B F"] | None = None
    """what a frozen prefix's own encoder of pictures makes of the observation; None: features are the same for both"""

    def repeat(self, times: int) -> Context:
        """Each row `times` times, in place."""
        return self._each(lambda x: x.repeat_interleave(times, 0))

    def rows(self, which: slice | Tensor) -> Context:
        """Some of the rows."""
        return self._each(lambda x: x[which])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Context:
        frozen = None if self.frozen is None else change(self.frozen)
        return Context(change(self.features), change(self.condition), frozen)


class Policy(ActorModule):
    """An actor with its inside open. `network` acts from `tuned_from` on, a frozen `prefix` before it."""

    def __init__(self, config: PolicyConfig, spec: PolicySpec) -> None:
        super().__init__()
        at_least(0, config, "past_actions")
        config.path.check_predicts(config.predicts)
        config.objective.check(config)
        config.path.grid(config.sampler.steps)  # refuses more steps than the path has
        self.config, self.spec = config, spec
        self.pictures, self.flat_obs = split_pictures(spec.obs)
        self.normalizer = Normalizer({**self.flat_obs, ACTION: spec.action})
        encoder = self._build_encoder()
        seen, whole = (encoder.per_step, encoder.whole) if encoder else ((), 0)
        self.action_prefix = ActionPrefix(spec.max_prefix, spec.action.dim)
        whole += self.action_prefix.size
        lengths = (*seen, *(s.dim for s in self.flat_obs.values()))
        length = spec.horizon + config.past_actions
        self.sizes = Sizes(lengths, spec.n_obs_steps, length, spec.action.dim, whole)
        self.network = config.network.build(self.sizes)
        self.network.encoder = encoder
        self.prefix = copy.deepcopy(self.network).requires_grad_(False) if config.tuned_from > 0 else None

    def _build_encoder(self) -> Encoder | None:
        if self.config.encoder is None and self.pictures:
            raise UserError(
                f"observation '{next(iter(self.pictures))}' is a picture: choose an encoder (policy.encoder, "
                "resnet or vit), or leave it out (policy.observe)"
            )
        if self.config.encoder is None:
            return None
        shapes = {name: (s.shape[0], s.shape[1], s.shape[2]) for name, s in self.pictures.items()}
        return self.config.encoder.build(shapes, sum(s.dim for s in self.flat_obs.values()), self.spec.n_obs_steps)

    @property
    def feature_dim(self) -> int:
        """F: length of the action prefix, the pictures' features and the normalised, flat observation."""
        return self.sizes.features

    # Observations

    def encode(self, obs: Mapping[str, Tensor], augment: Draws | None = None) -> Context:
        """The context of physical observations, name -> (B, T, ...); each picture is encoded once.

        Args:
            obs: with pictures as bytes; where the policy knows prefixes, maybe with one.
            augment: how pictures change, from `draw_augmentation`; None: they stay.

        Raises:
            UserError: for a missing observation or another shape.
        """
        own = self.prefix.encoder if self.prefix else None
        frozen = self.features(obs, augment, own) if own else None
        return self.context(self.features(obs, augment), frozen)

    def features(
        self, obs: Mapping[str, Tensor], augment: Draws | None = None, encoder: Encoder | None = None
    ) -> Float[Tensor, "B F"]:
        """Normalised, flat observations after what `encoder`, None: the policy's own, makes of pictures.

        Raises:
            UserError: as `encode`.
        """
        states = self._states(obs)
        first = self.action_prefix.features(obs, self.normalizer)
        encoder = encoder or self.network.encoder
        if encoder is None:
            return torch.cat([*first, *(x.flatten(1) for x in states)], 1)
        weights = next(encoder.parameters())
        batch = next(iter(obs.values())).shape[0]  # `len` would be a constant of an exported graph
        none = weights.new_empty(batch, encoder.n_obs_steps, 0)
        seen = encoder(torch.cat([none, *states], 2), obs, augment)
        return torch.cat([*first, seen, *(x.flatten(1) for x in states)], 1)

    def _states(self, obs: Mapping[str, Tensor]) -> list[Float[Tensor, "B T S"]]:
        """What is not a picture, normalised."""
        states = []
        for name, spec in self.flat_obs.items():
            if name not in obs:
                raise UserError(f"observation '{name}' is missing: the policy expects {list(self.spec.obs)}")
            expected = (self.spec.n_obs_steps, *spec.shape)
            if tuple(obs[name].shape[1:]) != expected:
                raise UserError(f"observation '{name}' has shape {tuple(obs[name].shape)}, expected (B, *{expected})")
            states.append(self.normalizer.normalize(name, obs[name]))
        return states

    def context(self, features: Float[Tensor, "B F"], frozen: Float[Tensor, "B F"] | None = None) -> Context:
        """Condition on features that are made already; `frozen`: see `Context`."""
        return Context(features, self.network.condition(features), frozen)

    def draw_augmentation(self, batch: int, generator: torch.Generator) -> Draws | None:
        """Random numbers that change the pictures of `batch` observations as the encoder is meant to be trained."""
        return self.network.encoder.draw(batch, generator) if self.network.encoder else None

    # The chain

    def transitions(self, explore: Exploration | None = None) -> Transitions:
        """The sampler's transitions, or those of an exploration in its place."""
        c = self.config
        return _transitions(c.path, c.predicts, _explored(c.sampler, explore))

    @property
    def first_tuned(self) -> int:
        """Index of the first transition that the tuned network makes."""
        return int((self.transitions().t[:-1] < self.config.tuned_from - 1e-9).sum())

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape of the noise of one decision: the initial draw and, unless deterministic, one per step."""
        sampler = self.config.sampler
        return (1 if sampler.deterministic else 1 + sampler.steps, self.sizes.horizon, self.sizes.action_dim)

    def noise(
        self, batch: int, generator: torch.Generator | None = None, *, steps: bool | None = None
    ) -> Float[Tensor, "B N H A"]:
        """Standard normal noise for whole chains; `steps` forces the draws per step in or out."""
        n, horizon, dim = self.noise_shape
        if steps is not None:
            n = 1 + self.config.sampler.steps if steps else 1
        return torch.randn(batch, n, horizon, dim, generator=generator, device=self.device, dtype=self.dtype)

    def embed_times(self, network: Denoiser | None = None) -> Float[Tensor, "K E"]:
        """What the (or another) network makes of the sampler's times and step sizes."""
        steps = self.config.sampler.steps
        values = (self.config.path.inputs(steps), np.diff(self.transitions().t))
        t, d = (torch.as_tensor(v, device=self.device, dtype=self.dtype) for v in values)
        return (network or self.network).time_embedding(t, d)

    def _step(self, context: Context) -> Step:
        tuned = self.network.fold(self.embed_times(), context.condition)
        if self.prefix is None:
            return self._in_time(tuned)
        if self.prefix.encoder and context.frozen is None:
            raise ValueError("the frozen prefix sees by an encoder of its own: make the context by `encode`")
        seen = context.features if context.frozen is None else context.frozen
        frozen = self.prefix.fold(self.embed_times(self.prefix), self.prefix.condition(seen))
        first = self.first_tuned
        return self._in_time(lambda k, x: frozen(k, x) if k < first else tuned(k, x))

    def _in_time(self, step: Step) -> Step:
        """A network sees past actions before the others; in a chain they come after them."""
        past = self.config.past_actions
        return (lambda k, x: step(k, x.roll(past, 1)).roll(-past, 1)) if past else step

    def _output(
        self, x: Float[Tensor, "B H A"], times: Float[Tensor, "B E"], condition: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B H A"]:
        """The tuned network's, in a chain's order."""
        return self._in_time(lambda _, x: self.network(x, times, condition))(0, x)

    def sample(
        self,
        context: Context,
        noise: Float[Tensor, "B N H A"],
        *,
        start: int = 0,
        stochastic: Exploration | None = None,
    ) -> Chain:
        """Walk chains from `noise`, keeping latents from transition `start` on.

        With `stochastic` every stored transition has a positive std and a log-prob, and `noise` needs a draw per step.
        """
        self._check_noise(noise, needs_steps=stochastic is not None or not self.config.sampler.deterministic)
        transitions = self.transitions(stochastic)
        draw, score = transitions.std, None
        if isinstance(stochastic, Tensor):
            draw = score = stochastic
        elif stochastic:
            draw, score = (transitions.floored(s) for s in (stochastic.min_std, stochastic.min_score_std))
        return sample_chain(self._step(context), transitions, noise, start=start, draw=draw, score=score)

    def score(self, context: Context, chain: Chain, stochastic: Exploration) -> Float[Tensor, "B S H A"]:
        """Log-probs of a stored chain under the tuned network: one call, transitions folded into the batch."""
        batch, stored = chain.x.shape[0], chain.x.shape[1] - 1
        k = torch.arange(chain.start, chain.start + stored, device=chain.x.device).repeat(batch)
        x, x_next = chain.x[:, :-1].flatten(0, 1), chain.x[:, 1:].flatten(0, 1)
        if isinstance(stochastic, Tensor):
            stochastic = stochastic[:, chain.start :].flatten(0, 1)
        return self.log_prob(context.repeat(stored), x, x_next, k, stochastic).unflatten(0, (batch, stored))

    def log_prob(
        self,
        context: Context,
        x: Float[Tensor, "B H A"],
        x_next: Float[Tensor, "B H A"],
        k: Int[Tensor, " B"],
        stochastic: Exploration,
    ) -> Float[Tensor, "B H A"]:
        """Log-density of transitions x -> x_next, one transition index per row, by the tuned network.

        `stochastic` as a tensor holds the standard deviations of the rows, (B, H, A).
        """
        output = self._output(x, self.embed_times()[k], context.condition)
        transitions = self.transitions(stochastic)
        if isinstance(stochastic, Tensor):
            std = stochastic
        else:
            floored = transitions.floored(stochastic.min_score_std)
            std = torch.as_tensor(floored, device=x.device, dtype=x.dtype)[k][:, None, None]
        return normal_log_prob(x_next, transitions.mean(output, x, k), std)

    # One call

    def predict(
        self,
        context: Context,
        x: Float[Tensor, "B H A"],
        t: Float[Tensor, " B"],
        d: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B H A"]:
        """The tuned network's output at times t, for steps of size d where it sees them (None: 0)."""
        shown = self.config.path.time_input(t).to(x.dtype)
        times = self.network.time_embedding(shown, torch.zeros_like(shown) if d is None else d.to(x.dtype))
        return self._output(x, times, context.condition)

    def predict_data(
        self, context: Context, x: Float[Tensor, "B H A"], t: Float[Tensor, " B"]
    ) -> Float[Tensor, "B H A"]:
        """The action that x at times t leads to, as one call sees it (for a posterior mean, see EDP), clipped."""
        p, q = data_from_output(self.config.predicts, *self.config.path.alpha_sigma_tensor(t))
        p, q = (c.to(x.dtype)[:, None, None] for c in (p, q))
        sampler = self.config.sampler
        return clamp(clamp(p * x + q * self.predict(context, x, t), sampler.clip_data), sampler.clip_mean)

    # Training

    def loss(
        self,
        context: Context,
        data: Float[Tensor, "B H A"],
        t: Float[Tensor, " B"],
        noise: Float[Tensor, "B H A"],
    ) -> Float[Tensor, " B"]:
        """Squared error of the prediction at time t, per sample; `data` is normalised."""
        alpha, sigma = (c.to(data.dtype)[:, None, None] for c in self.config.path.alpha_sigma_tensor(t))
        output = self.predict(context, alpha * data + sigma * noise, t)
        return (output - training_target(self.config.predicts, data, noise)).square().mean((1, 2))

    # Acting

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        noise: Float[Tensor, "B N L A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B H A"]:
        """Physical action chunks for physical observations, name -> (B, T, ...)."""
        context = self.encode({name: value.to(self.device) for name, value in obs.items()})
        if noise is None:
            noise = self.noise(len(context.features), generator)
        return self.forward(context.features, noise, context.frozen)

    def forward(
        self,
        features: Float[Tensor, "B F"],
        noise: Float[Tensor, "B N L A"],
        frozen: Float[Tensor, "B F"] | None = None,
    ) -> Float[Tensor, "B H A"]:
        """The whole chain from features and noise to physical actions; what is compiled and exported."""
        self._check_noise(noise, needs_steps=not self.config.sampler.deterministic)
        step = self._step(self.context(features, frozen))
        action = denoise(step, self.transitions(), noise.to(self.dtype))[:, : self.spec.horizon]
        return self.normalizer.denormalize(ACTION, self.action_prefix.hold(features, action))

    def _check_noise(self, noise: Tensor, *, needs_steps: bool) -> None:
        n, horizon, dim = (1 + self.config.sampler.steps if needs_steps else 1, *self.noise_shape[1:])
        if noise.dim() != 4 or noise.shape[1] < n or tuple(noise.shape[2:]) != (horizon, dim):
            raise UserError(f"noise has shape {tuple(noise.shape)}, expected (B, {n}, {horizon}, {dim})")

    # Variants of the same weights

    def with_sampler(self, sampler: Sampler) -> Policy:
        """A policy that shares these weights and walks the path otherwise."""
        other = copy.copy(self)
        other.config = replace(self.config, sampler=sampler)
        other.config.path.grid(sampler.steps)  # refuses more steps than the path has
        return other

    def split(self, finetune_steps: int) -> Policy:
        """A copy whose last `finetune_steps` denoising steps can be tuned; the earlier ones stay frozen.

        Raises:
            UserError: unless 1 <= finetune_steps <= K.
        """
        steps = self.config.sampler.steps
        if not 1 <= finetune_steps <= steps:
            raise UserError(
                f"finetune_steps {finetune_steps} must lie between 1 and the sampler's steps {steps}: change "
                "algo.finetune_steps"
            )
        tuned_from = float(self.transitions().t[steps - finetune_steps]) if finetune_steps < steps else 0.0
        if self.prefix is not None:
            raise UserError(
                "this policy is fine-tuned already: fine-tune it further with --resume, or start from its base"
            )
        policy = Policy(replace(self.config, tuned_from=tuned_from), self.spec).to(self.device, self.dtype)
        policy.network.load_state_dict(self.network.state_dict())
        policy.normalizer.load_state_dict(self.normalizer.state_dict())
        if policy.prefix is not None:
            policy.prefix.load_state_dict(self.network.state_dict())
        return policy


def _explored(sampler: Sampler, explore: Exploration | None) -> Sampler:
    if explore is None:
        return sampler
    if isinstance(explore, Stochastic):
        return replace(sampler, eta=explore.eta, transition=explore.transition)
    return sampler.without_noise()

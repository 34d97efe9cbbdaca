"""Every method that `finetune --algo` offers: its settings by default, and what it is in one line."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..algos.decorator import PolicyDecorator
from ..algos.dppo import DPPO
from ..algos.dql import DQL
from ..algos.dql import METHODS as Q_METHODS
from ..algos.dsrl import DSRL, DSRLSAC
from ..algos.idql import IDQL
from ..algos.idql import METHODS as I_METHODS
from ..algos.reinflow import ReinFlow
from ..algos.resip import ResiP
from ..algos.sac import SAC

Algorithm = DPPO | ReinFlow | ResiP | DSRL | DSRLSAC | PolicyDecorator | DQL | IDQL | SAC
"""union of their settings"""


@dataclass(frozen=True)
class Method:
    """One name on the command line."""

    settings: Any
    """an `Algorithm`; the fields are the hyperparameters"""
    what: str
    fresh: str = "diffusion"
    """kind of the policy that is built where none is given"""


METHODS = {
    "dppo": Method(DPPO(), "policy gradients through the denoising chain"),
    "dppo-official": Method(DPPO(timeout="terminal"), "DPPO with the official code's choices"),
    "reinflow": Method(ReinFlow(), "policy gradients through a flow with learned noise"),
    "reinflow-official": Method(ReinFlow(timeout="terminal"), "ReinFlow with the official code's choices"),
    "resip": Method(ResiP(), "PPO on a correction to a frozen policy, at every control step"),
    "residual": Method(PolicyDecorator(), "soft actor-critic on a bounded correction (Policy Decorator)"),
    "dsrl-na": Method(DSRL(), "soft actor-critic over the noise of a frozen policy, critics on its actions"),
    "dsrl-sac": Method(DSRLSAC(), "soft actor-critic over the noise of a frozen policy"),
    "dql": Method(Q_METHODS["dql"], "cloning plus the gradient of Q through the whole chain"),
    "edp": Method(Q_METHODS["edp"], "cloning plus the gradient of Q through one call (efficient diffusion policy)"),
    "fql": Method(Q_METHODS["fql"], "a one-step student climbs Q and stays near a cloned flow", "flow"),
    "ofql": Method(Q_METHODS["ofql"], "a one-step mean-flow policy climbs Q", "meanflow"),
    "bfn": Method(Q_METHODS["bfn"], "cloning; Q ranks the samples (best of N, Q-chunking)", "flow"),
    "idql": Method(I_METHODS["idql"], "implicit Q-learning ranks the samples of a cloned policy"),
    "ifql": Method(I_METHODS["ifql"], "the same for flows", "flow"),
    "sac": Method(SAC(), "soft actor-critic: a Gaussian policy from scratch, to compare with"),
}


def name_of(algo: Algorithm) -> str:
    """What the command line calls settings: the method of their class whose defaults differ from them least."""
    near = {
        name: sum(getattr(algo, f.name) != getattr(method.settings, f.name) for f in fields(algo))
        for name, method in METHODS.items()
        if type(method.settings) is type(algo)
    }
    return min(near, key=lambda name: near[name])

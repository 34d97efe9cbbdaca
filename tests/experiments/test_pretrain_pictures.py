"""Pre-training on demonstrations with a camera: from files to a loaded policy that acts by what it sees."""

import numpy as np
import torch

from noisepilot.algos.bc import BC
from noisepilot.datasets.episodes import Episodes
from noisepilot.experiments.pretrain import Pretrain, pretrain
from noisepilot.policies import MLP, LinearPath, PolicyConfig, Sampler, load_policy
from noisepilot.policies.storage import find_policy
from noisepilot.policies.vision import ViT

CAMERA = "observation.images.front"


def demonstrations(folder):
    """Episodes whose action is 1 where the picture is bright and -1 where it is dark."""
    rng = np.random.default_rng(0)
    bright = rng.random(60) < 0.5
    pictures = (rng.integers(0, 100, (60, 16, 18, 3)) + 150 * bright[:, None, None, None]).astype(np.uint8)
    data = {
        CAMERA: pictures,
        "observation.state": rng.standard_normal((60, 2)).astype(np.float32),
        "action": np.where(bright, 1, -1)[:, None].astype(np.float32),
    }
    Episodes(data, np.arange(6, 61, 6), {"fps": 10.0}).write(folder)
    return pictures, bright


def test_a_policy_learns_from_a_camera(tmp_path):
    pictures, bright = demonstrations(tmp_path / "demos")
    policy = PolicyConfig(
        MLP(hidden=(16, 16, 16)),
        LinearPath(),
        Sampler(2, eta=0.0),
        "velocity",
        horizon=1,
        n_action_steps=1,
        encoder=ViT(width=8, heads=2, features=8),
    )
    bc = BC(grad_steps=120, batch=32, lr=3e-3)
    run = pretrain(Pretrain(str(tmp_path / "demos"), str(tmp_path / "run"), policy=policy, bc=bc, held_out=0.2))
    actor = load_policy(find_policy(run.path))
    obs = {"images.front": torch.from_numpy(pictures)[:, None], "state": torch.zeros(60, 1, 2)}
    action = actor.act(obs, generator=torch.Generator().manual_seed(0)).flatten()
    assert ((action > 0).numpy() == bright).mean() > 0.95

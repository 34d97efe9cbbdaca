"""A policy on disk: the same actions back, and one line for everything that can be wrong with a folder."""

import json
import shutil

import pytest
import safetensors.torch
import torch

from noisepilot.errors import UserError
from noisepilot.policies import Policy, PolicyConfig, load_policy, save_policy
from noisepilot.spec import ArraySpec

from .toys import KINDS, generator, jolt, observe, tiny


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tuned", [False, True])
def test_actions_come_back_bit_for_bit(kind, tuned, tmp_path):
    policy = tiny(kind, dtype=torch.float32, obs={"state": 3, "goal": 2})
    if tuned:
        policy = policy.split(2)
        jolt(policy.network)
    save_policy(policy, tmp_path / "policy", {"step": 7})
    loaded = load_policy(tmp_path / "policy", "cpu")
    obs, noise = observe(policy), policy.noise(4, generator())
    assert (loaded.act(obs, noise) == policy.act(obs, noise)).all()
    assert loaded.config == policy.config
    assert loaded.spec == policy.spec
    assert not loaded.training
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["provenance"] == {"step": 7}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["config.json", "model.safetensors", "policy"]


def test_saving_again_replaces_the_folder(tmp_path):
    for seed in (0, 1):
        save_policy(tiny(seed=seed, dtype=torch.float32), tmp_path / "policy")
    policy, loaded = tiny(seed=1, dtype=torch.float32), load_policy(tmp_path / "policy", "cpu")
    obs, noise = observe(policy), policy.noise(4, generator())
    assert (loaded.act(obs, noise) == policy.act(obs, noise)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


def test_an_unfitted_policy_is_not_saved(tmp_path):
    config = PolicyConfig()
    policy = Policy(config, config.spec({"state": ArraySpec((3,))}, ArraySpec((2,))))
    with pytest.raises(UserError, match="normaliser of 'state' is missing"):
        save_policy(policy, tmp_path / "policy")
    assert not list(tmp_path.iterdir())


def edit(change):
    """Damage that rewrites config.json."""

    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def without(*names):
    """Damage that drops tensors."""

    def damage(folder):
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        kept = {k: v for k, v in tensors.items() if k not in names}
        assert len(kept) < len(tensors)
        safetensors.torch.save_file(kept, folder / "model.safetensors")

    return damage


def nan_normalizer(folder):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["normalizer.center_action"].fill_(torch.nan)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def cut(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


DAMAGES = [
    ("is not a policy: it has no config.json", shutil.rmtree),
    ("is not a policy: it has no config.json", lambda f: (f / "config.json").unlink()),
    ("has no model.safetensors", lambda f: (f / "model.safetensors").unlink()),
    ("model.safetensors is corrupt", lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 64)),
    ("model.safetensors is corrupt", cut),
    ("model.safetensors is corrupt", lambda f: (f / "model.safetensors").write_bytes(b"")),
    ("config.json is not JSON", lambda f: (f / "config.json").write_text("{")),
    ("config.json is not JSON", lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00")),
    ("does not describe a policy", lambda f: (f / "config.json").write_text("[1]")),
    ("it needs format, config and spec", edit(lambda c: c.pop("spec"))),
    ("written in format 99, newer than", edit(lambda c: c.update(format=99))),
    (
        "names 'policies.network:Perceptron'",
        edit(lambda c: c["config"]["network"].update(type="policies.network:Perceptron")),
    ),
    ("names 'os:path'", edit(lambda c: c["config"]["network"].update(type="os:path"))),
    ("does not fit this version: .*width", edit(lambda c: c["config"]["network"].update(width=3))),
    ("does not fit its config.json: .*normalizer.center_state", without("normalizer.center_state")),
    ("does not fit its config.json: .*normalizer.half_action", without("normalizer.half_action")),
    ("normaliser of 'action' is missing", nan_normalizer),
    ("does not fit its config.json: .*size mismatch", edit(lambda c: c["config"]["network"].update(hidden=[8, 8, 8]))),
    ("does not fit its config.json: .*prefix", edit(lambda c: c["config"].update(tuned_from=0.5))),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGES, ids=range(len(DAMAGES)))
def test_damage_is_named_in_one_line(message, damage, tmp_path):
    folder = save_policy(tiny(dtype=torch.float32), tmp_path / "policy")
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        load_policy(folder, "cpu")
    assert "\n" not in str(error.value)

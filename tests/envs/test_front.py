"""The front door: tensors, seeds, the list of environments, what is imported, pictures."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from noisepilot.envs import Core, list_envs, make, make_core
from noisepilot.envs.keywords import KINDS
from noisepilot.envs.registry import TABLE, find
from noisepilot.envs.render import can_draw
from noisepilot.envs.seeds import FIRST_TRAIN_SEED, eval_seeds, packed, train_seeds, unpacked
from noisepilot.errors import UserError


def test_tensors_are_the_cores_numbers():
    env, core = make("PointMaze_UMaze-v3", 2), make_core("PointMaze_UMaze-v3", 2)
    obs, plain = env.reset([0, 1]), core.reset([0, 1])
    action = torch.full((2, 3, 2), 0.25, requires_grad=True)
    step, reference = env.step(action), core.step(np.full((2, 3, 2), 0.25))
    assert obs["state"].dtype == torch.float64
    assert step.valid.dtype == torch.bool
    for name, value in plain.items():
        np.testing.assert_array_equal(obs[name], value)
        np.testing.assert_array_equal(step.obs[name], reference.obs[name])
        np.testing.assert_array_equal(step.final_obs[name], reference.final_obs[name])
    assert not step.ended.any()
    np.testing.assert_array_equal(env.set_state(env.get_state())["state"], step.final_obs["state"])
    assert env.spec == core.spec
    env.close()


def test_no_torch_behind_make_core():
    script = (
        "import sys; from noisepilot.envs import make_core;"
        "make_core('Hopper-v5', 2).reset([0, 1]); make_core('PointMaze_Open-v3').reset([0]);"
        "import noisepilot.envs.waypoint, noisepilot.envs.remote; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    light = "import sys, noisepilot.envs; assert not {'mujoco', 'gymnasium', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", light], check=True)


def test_training_and_evaluation_seeds_never_meet():
    drawn = [train_seeds(run, slot, episode) for run in range(3) for slot in range(9) for episode in range(9)]
    assert len(set(drawn)) == 243
    assert min(drawn) >= FIRST_TRAIN_SEED
    assert max(drawn) < 2**31
    assert eval_seeds(3) == range(3)
    assert eval_seeds(FIRST_TRAIN_SEED)[-1] < FIRST_TRAIN_SEED
    assert train_seeds(1, 2, 3) == train_seeds(1, 2, 3)
    for bad in (lambda: train_seeds(-1, 0, 0), lambda: eval_seeds(FIRST_TRAIN_SEED + 1)):
        with pytest.raises(UserError):
            bad()


def test_generators_survive_as_words():
    rng = np.random.default_rng(5)
    rng.integers(0, 9, dtype=np.uint32)
    copy = unpacked(np.array(packed(rng), np.uint64))
    assert rng.integers(0, 2**30, 8).tolist() == copy.integers(0, 2**30, 8).tolist()
    assert rng.normal() == copy.normal()


def test_list_of_environments():
    listed = list_envs()
    assert listed["Hopper-v5"] == "rollout"
    assert listed["PointMaze_LargeDense-v3"] == "rollout"
    assert listed["Ant-v5"] == "threads"
    assert listed["Pendulum-v1"] == "worker"
    assert "Hopper-v2" not in listed


@pytest.mark.parametrize("env", [env for env, entry in TABLE.items() if entry.backend == "threads"])
def test_specs_rebuild_their_environment(env):
    core = make_core(env, 1, max_episode_steps=11)
    again = make_core(core.spec.id, 1, **json.loads(json.dumps(dict(core.spec.kwargs))))
    assert again.spec == core.spec
    assert isinstance(core, Core)
    core.close()
    again.close()


@pytest.mark.parametrize("entry", {entry.task for entry in TABLE.values()})
def test_every_keyword_has_a_kind(entry):
    assert {str(field.type) for field in dataclasses.fields(find(entry))} <= set(KINDS)


def test_drawing_without_a_display_says_how():
    assert not can_draw({}, "linux", "mujoco.glfw")
    assert can_draw({}, "linux", "mujoco.egl")
    assert can_draw({"DISPLAY": ":0"}, "linux", "mujoco.glfw")
    assert can_draw({}, "darwin", "mujoco.cgl")


@pytest.mark.parametrize("env", ["Hopper-v5", "Ant-v5", "PointMaze_Medium-v3"])
def test_pictures(env):
    script = (
        f"from noisepilot.envs import make_core; core = make_core({env!r}, 2); core.reset([0, 1]);"
        "picture = core.render(1, 64, 48); assert picture.shape == (48, 64, 3), picture.shape;"
        "assert picture.std() > 1; core.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "MUJOCO_GL": "egl"}, capture_output=True, text=True
    )
    if "import" in done.stderr and "egl" in done.stderr.lower():
        pytest.skip("no EGL on this machine")
    assert done.returncode == 0, done.stderr

"""What every suite's adapter has to do."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from noisepilot.envs import make_core
from noisepilot.envs.suites import SUITES

os.environ.setdefault("MUJOCO_GL", "egl")


def need(suite):
    """Skip where a suite is absent, with the command that installs it."""
    if not SUITES[suite].version:
        pytest.skip(f"noisepilot envs install {suite}", allow_module_level=True)


def play(core, chunks, n=5, seed=0):
    """Random actions between the limits, as chunks (K, N, n, A)."""
    rng = np.random.default_rng(seed)
    low, high = np.array(core.spec.action.low), np.array(core.spec.action.high)
    return rng.uniform(low, high, (chunks, core.num_envs, n, len(low)))


def check_adapter(env, hz, limit, shapes, **kwargs):
    """Facts; the same seeds and actions lead to the same place; states are restored by replay."""
    core = make_core(env, 2, **kwargs)
    try:
        spec = core.spec
        assert (spec.id, spec.control_hz, spec.max_steps) == (env, hz, limit)
        assert {name: array.shape for name, array in spec.obs.items()} == shapes
        assert spec.signals[0] == "success"
        for array in (spec.action, *spec.obs.values()):
            assert len(array.names) in (0, *array.shape)
        chunks = play(core, 4)
        first = core.reset([3, 4])
        core.step(chunks[0])
        core.step(chunks[1])
        state = core.get_state()
        ahead = [core.step(chunk) for chunk in chunks[2:]]
        core.set_state(state)
        for step, chunk in zip(ahead, chunks[2:], strict=True):
            again = core.step(chunk)
            np.testing.assert_array_equal(again.reward, step.reward)
            for name, value in step.obs.items():
                np.testing.assert_array_equal(again.obs[name], value)
        other = core.reset([4, 3])
        for name, value in first.items():
            np.testing.assert_array_equal(other[name], value[::-1])
        assert any((value[0] != value[1]).any() for value in first.values())
    finally:
        core.close()
    again = make_core(env, 1, **json.loads(json.dumps(dict(spec.kwargs))))
    again.close()
    assert again.spec == spec
    return spec


def expert_success(env, episodes=4, **kwargs):
    """How many episodes the suite's expert ends with success."""
    core = make_core(env, episodes, **{"terminate_on_success": True, **kwargs})
    try:
        core.reset(range(episodes))
        done = np.zeros(episodes, bool)
        for _ in range(core.spec.max_steps):
            step = core.step(core.expert())
            done |= (step.signals["success"] * step.valid).any(1)
            if not step.valid.any():
                break
        return int(done.sum())
    finally:
        core.close()

"""The C file computes what the numpy player computes, compiles without a warning, and says no where it must."""

import ctypes
import dataclasses
import json
import math
import subprocess

import numpy as np
import pytest
import torch

from noisepilot.deploy.arrays import chain_arrays, chain_facts, pack
from noisepilot.deploy.c_source import c_names, c_source, read_metadata
from noisepilot.deploy.cameras import Cameras
from noisepilot.deploy.compiled import build, find_compiler, load, play
from noisepilot.deploy.export import describe, export
from noisepilot.deploy.parity import action_span
from noisepilot.deploy.rounding import rounded
from noisepilot.deploy.runtime import Policy as Exported
from noisepilot.deploy.runtime import PolicyError
from noisepilot.errors import UserError
from noisepilot.spec import ArraySpec

from .toys import CONFIGS, draw_obs, make_policy

STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wno-overlength-strings", "-Werror")
try:
    find_compiler()
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)


def with_mlp(name, **changes):
    """A policy whose network differs from that of a named one."""
    base = make_policy(name)
    config = dataclasses.replace(base.config, network=dataclasses.replace(base.config.network, **changes))
    torch.manual_seed(1)
    policy = config.build(base.spec).eval()
    policy.normalizer.load_state_dict(base.normalizer.state_dict())
    return policy


def with_prefix():
    policy = make_policy("history").split(2)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return policy


def with_unbounded_noise():
    base = make_policy("ddpm20")
    sampler = dataclasses.replace(base.config.sampler, noise_clip=math.inf)
    return base.with_sampler(sampler).eval()


POLICIES = {
    **{name: lambda name=name: make_policy(name) for name in CONFIGS},
    "prefix": with_prefix,
    "unbounded": with_unbounded_noise,
    "odd-widths": lambda: with_mlp("condition", hidden=(70, 33, 5), condition_hidden=(45,), activation="tanh"),
    "silu": lambda: with_mlp("ddim5", hidden=(40,), activation="silu"),
    "mish-residual": lambda: with_mlp("ddpm20", hidden=(48,) * 5, activation="mish"),
    "plain-relu": lambda: with_mlp("flow1", hidden=(64, 64), residual=False),
    "time-itself": lambda: with_mlp("flow1", time_dim=0, activation="gelu"),
}


def text_of(policy, weights="float32"):
    metadata = describe(policy, Cameras(policy.spec)) | {"chain": chain_facts(policy) | {"weights": weights}}
    return json.dumps(metadata).replace("-Infinity", "null").replace("Infinity", "null")


def source_of(policy, weights="float32"):
    return c_source(chain_arrays(policy), text_of(policy, weights))


def in_numpy(policy):
    return Exported.from_bytes(pack(chain_arrays(policy), text_of(policy)))


def inputs(policy, count):
    """Observations of which some lie far outside the range, and noises."""
    obs = {name: 3 * value.numpy() for name, value in draw_obs(policy, count).items()}
    return obs, policy.noise(count, torch.Generator().manual_seed(2)).numpy()


def assert_same(policy, actions, expected):
    assert np.abs((actions - expected) / action_span(policy)).max() < 1e-5


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_equals_the_numpy_player(name, weights):
    policy = POLICIES[name]()
    held = rounded(policy, "bfloat16") if weights == "bfloat16" else policy
    obs, noise = inputs(policy, 24)
    expected = in_numpy(held).act(obs, noise)
    assert_same(policy, load(source_of(held, weights), STRICT).act(obs, noise), expected)
    tensors = {name: torch.from_numpy(value) for name, value in obs.items()}
    assert_same(policy, held.act(tensors, torch.from_numpy(noise)).numpy(), expected)
    if held is not policy:
        assert np.abs(in_numpy(policy).act(obs, noise) - expected).max() > 1e-5


# What -ffast-math does to code, flag by flag: linked with the flag itself, gcc's libraries turn off subnormal numbers
# in the whole process that loads them.
FAST = "-fno-math-errno -ffinite-math-only -fno-signed-zeros -fno-trapping-math -fassociative-math -freciprocal-math"


@pytest.mark.parametrize("flags", [("-O3", "-march=native", *FAST.split()), ("-O0",)])
@pytest.mark.parametrize("name", ["mish-residual", "shortcut4"])
def test_flags_change_nothing(name, flags):
    policy = POLICIES[name]()
    obs, noise = inputs(policy, 24)
    source = source_of(policy)
    library = build(source, flags)
    assert_same(policy, play(library, read_metadata(source)).act(obs, noise), in_numpy(policy).act(obs, noise))
    assert refusals(library, policy) == [1, 2]


def refusals(library, policy):
    """What NaN and infinity are answered with; the action stays."""
    obs, noise = inputs(policy, 1)
    record = np.concatenate([value.ravel() for value in obs.values()])
    codes = []
    for bad in (record, noise):
        bad = bad.reshape(-1)
        kept, bad[-1] = bad[-1], np.nan if bad is record else np.inf
        action = np.full((policy.spec.horizon, policy.spec.action.dim), 7, np.float32)
        codes.append(library.noisepilot_act(*(array.ctypes.data for array in (record, noise, action))))
        assert (action == 7).all()
        bad[-1] = kept
    return codes


def test_refuses_an_action_that_is_not_finite():
    policy = make_policy("stretched")
    with torch.no_grad():
        next(policy.network.trunk.parameters()).mul_(1e3)
    obs, noise = inputs(policy, 1)
    obs["state"][:] = 3e38
    with pytest.raises(PolicyError, match="the compiled policy refuses: the action is not finite"):
        load(source_of(policy)).act(obs, noise)


@pytest.mark.parametrize(("name", "weights"), [("prefix", "float32"), ("odd-widths", "bfloat16")])
def test_the_program_under_sanitizers(tmp_path, name, weights):
    checks = "-fsanitize=address,undefined,float-cast-overflow"
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    (tmp_path / "policy.c").write_bytes(source_of(rounded(POLICIES[name](), "bfloat16"), weights))
    words = [*find_compiler(), *STRICT, checks, "-fno-sanitize-recover=all"]
    probe = [*words, "-o", str(tmp_path / "empty"), str(tmp_path / "empty.c")]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("the C compiler has no sanitizers")
    program = tmp_path / "policy"
    subprocess.run([*words, "-DNOISEPILOT_MAIN", "-o", str(program), str(tmp_path / "policy.c"), "-lm"], check=True)
    policy = rounded(POLICIES[name](), "bfloat16")
    obs, noise = inputs(policy, 9)
    records = b"".join(b"".join(v[i].tobytes() for v in obs.values()) + noise[i].tobytes() for i in range(9))
    done = subprocess.run([str(program)], input=records, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    actions = np.frombuffer(done.stdout, np.float32).reshape(9, policy.spec.horizon, -1)
    assert_same(policy, actions, in_numpy(policy).act(obs, noise))
    done = subprocess.run([str(program)], input=records[:-4], capture_output=True, check=False)
    assert (done.returncode, len(done.stdout)) == (2, actions[:8].nbytes)


def test_elementary_functions():
    """Within 3e-7 of their values, as the file says, over the whole range."""
    head, loop = "(const float *x, float *y, int n)", "for (int i = 0; i < n; i++)"
    functions = "".join(f"void probe_{name}{head} {{ {loop} y[i] = np_{name}(x[i]); }}\n" for name in ("exp", "tanh"))
    library = build(source_of(with_mlp("flow1", activation="gelu")) + functions.encode(), ("-O3",))
    for name, x in (
        ("exp", np.linspace(-87, 88, 400_001)),
        ("tanh", np.concatenate([np.linspace(-20, 20, 400_000), np.geomspace(1e-20, 1, 1000)])),
    ):
        x = x.astype(np.float32)
        y = np.empty_like(x)
        probe = getattr(library, f"probe_{name}")
        probe.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        probe(x.ctypes.data, y.ctypes.data, len(x))
        exact = getattr(np, name)(x.astype(np.float64))
        assert np.abs(y - exact).max() < 1e-7 or name == "exp"
        assert np.abs(y / exact - 1).max(where=exact != 0, initial=0) < 3e-7


def test_draws_standard_normal_numbers_from_a_seed():
    policy = make_policy("ddpm20")
    library, size = build(source_of(policy)), math.prod(policy.noise_shape)
    draws = np.empty((2, 600, size), np.float32)
    for run in draws:
        state = ctypes.c_uint64(5)
        for row in run:
            library.noisepilot_draw(ctypes.addressof(state), row.ctypes.data)
    np.testing.assert_array_equal(draws[0], draws[1])
    flat = np.sort(draws[0].ravel().astype(np.float64))  # 100,800 numbers: standard error of the mean 0.003
    assert abs(flat.mean()) < 0.015
    assert abs(flat.std() - 1) < 0.01
    uniform = np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in flat])
    assert np.abs(uniform - np.arange(flat.size) / flat.size).max() < 1.95 / math.sqrt(flat.size)  # Kolmogorov, 0.1 %


NASTY = ["a*/ b /*", 'quote " and \\', "float", "task-goal", "task.goal", "2nd ??/ ??)", "größe"]


def test_any_name_can_be_written(tmp_path):
    spec = {name: ArraySpec((2,), names=("*/", '\\"??/'), unit="m*/s") for name in NASTY}
    policy = make_policy("flow1", spec)
    path = export(policy, tmp_path / "p.c", provenance={"note": '??= "\\n" \n */ é'})
    player = load(path.read_bytes(), STRICT)
    obs, noise = inputs(policy, 3)
    assert_same(policy, player.act(obs, noise), in_numpy(policy).act(obs, noise))
    library = build(path.read_bytes())
    assert json.loads(library.noisepilot_metadata()) == player.metadata
    assert player.metadata["provenance"] == {"note": '??= "\\n" \n */ é'}
    assert list(player.metadata["observations"]) == NASTY
    names = c_names(NASTY)
    assert names[2:6] == ["float_", "task_goal", "task_goal_", "_2nd________"]
    assert len(set(names)) == len(NASTY)

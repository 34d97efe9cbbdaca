"""The official diffusion transformer's numbers (float64)."""

import pytest

from noisepilot.policies import Transformer
from noisepilot.policies.denoiser import Sizes
from noisepilot.policies.foreign.transformer import rename_transformer

from .parity import Fixture
from .test_parity_dppo import close


@pytest.mark.parametrize("name", ["causal_obs_mlp_encoder", "obs_transformer_encoder", "encoder_only"])
def test_network(shared_data, name):
    f = Fixture(shared_data, f"dp_transformer_{name}")
    config = Transformer(
        layers=f.set("n_layer"),
        heads=f.set("n_head"),
        width=f.set("n_emb"),
        condition_layers=f.set("n_cond_layers"),
        cross=bool(f.set("time_as_cond")),
        causal=bool(f.set("causal_attn")),
        first="oldest",
    )
    seen = f.set("cond_dim")
    sizes = Sizes((seen,) if seen else (), f.set("n_obs_steps"), f.set("horizon"), f.set("input_dim"))
    network = config.build(sizes).double()
    names = [k.removeprefix("w.net.") for k in f.arrays if k.startswith("w.net.")]
    network.load_state_dict(rename_transformer({k: f.tensor(f"w.net.{k}") for k in names}))
    x = f.tensor("x")
    observed = f.tensor("cond").flatten(1) if seen else x.new_zeros(len(x), 0)
    condition, times = network.condition(observed), network.time_embedding(f.tensor("t").double())
    close(network(x, times, condition).detach(), f.tensor("out64.eps"))
    step = network.fold(times, condition)
    for row in range(len(x)):
        close(step(row, x)[row].detach(), f.tensor("out64.eps")[row])

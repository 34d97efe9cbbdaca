"""The server and its client: the same actions as the file's, refusals in one line, and openpi's protocol both ways."""

import dataclasses
import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from noisepilot.deploy.export import export
from noisepilot.deploy.runtime import Policy, PolicyError, RemotePolicy, run_loop
from noisepilot.deploy.runtime.wire import Reader, pack
from noisepilot.deploy.server import Server, Settings, serving
from noisepilot.deploy.server.metrics import Histogram, Metrics
from noisepilot.errors import UserError

from .serving import METADATA, SHAPES, Sum, draw, eventually, raw, stand_in, sum_as_onnx
from .toys import Counter, Planner, draw_obs, make_policy

pytest.importorskip("websockets", reason="pip install 'noisepilot[serve]'")
pytest.importorskip("msgpack", reason="pip install 'noisepilot[serve]'")


def get(address, path, token=None):
    request = urllib.request.Request(address.replace("ws", "http", 1) + path)
    if token:
        request.add_header("Authorization", f"Api-Key {token}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def counted(address, name, **options):
    lines = get(address, "/metrics", **options).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"noisepilot_{name} "))


def errors(address, kind):
    return counted(address, f'errors_total{{kind="{kind}"}}')


@pytest.fixture(scope="module")
def served():
    """One server for all tests that leave it as it was."""
    with serving(Sum().policy(), Settings(port=0, max_batch=8)) as address:
        yield address


# The client


def test_a_served_npz_acts_as_the_file(tmp_path):
    policy = make_policy("history")
    local = Policy.load(export(policy, tmp_path / "p.npz", provenance={"data_hash": "d"}))
    check_same(local, {name: value.numpy() for name, value in draw_obs(policy, 20).items()})


def test_a_served_onnx_acts_as_the_file(tmp_path):
    onnx = pytest.importorskip("onnx", reason="pip install 'noisepilot[export]'")
    pytest.importorskip("onnxruntime", reason="pip install 'noisepilot[run]'")
    local = Policy.load(sum_as_onnx(onnx, tmp_path / "p.onnx"))
    np.testing.assert_array_equal(
        local.act(draw(3), np.ones((1, 4, 2))), Sum().policy().act(draw(3), np.ones((1, 4, 2)))
    )
    check_same(local, draw(1, 20))


def check_same(local, obs):
    """A served policy gives the numbers of the local one: exactly for one row, by rounding else."""
    one = {name: value[0] for name, value in obs.items()}
    with serving(local, Settings(port=0, max_batch=8)) as address, RemotePolicy(address, spec=local.spec) as remote:
        assert remote.spec == local.spec
        assert remote.metadata == local.metadata
        assert remote.digest == local.digest != ""
        generators = [np.random.default_rng(4) for _ in range(2)]
        for _ in range(3):
            ours, theirs = (p.act(one, generator=g) for p, g in zip((local, remote), generators, strict=True))
            np.testing.assert_array_equal(ours, theirs)
        noise = np.random.default_rng(1).normal(size=(20, *local.spec.noise_shape))
        np.testing.assert_allclose(remote.act(obs, noise), local.act(obs, noise), atol=1e-6)  # batches of 8, 8, 4


def test_client_checks_as_a_local_policy(served):
    local = Sum().policy()
    bad = {**draw(0), "goal": np.full((2, 1), np.nan)}
    with RemotePolicy(served) as remote:
        before = counted(served, "requests_total")
        for obs, noise in ((bad, None), ({"state": draw(0)["state"]}, None), (draw(0), np.zeros((1, 4, 3)))):
            with pytest.raises(PolicyError) as theirs:
                remote.act(obs, noise)
            with pytest.raises(PolicyError) as ours:
                local.act(obs, noise)
            assert str(theirs.value) == str(ours.value)
        assert counted(served, "requests_total") == before


def test_in_the_loop():
    planner, local = Planner(), Planner()
    with serving(planner.policy(), Settings(port=0, max_batch=1)) as address, RemotePolicy(address) as remote:
        theirs = run_loop(remote, Counter(6), hz=1000.0, episodes=2, seed=3)
    ours = run_loop(local.policy(), Counter(6), hz=1000.0, episodes=2, seed=3)
    assert (planner.seen, planner.noise) == (local.seen, local.noise)
    assert theirs["episodes"] == ours["episodes"]


def test_a_lost_question_is_asked_again_and_another_policy_is_noticed(monkeypatch):
    first, obs, noise = Sum(), draw(1), np.ones((1, 4, 2))
    with serving(first.policy(), Settings(port=0, idle_s=0.2)) as address:
        remote = RemotePolicy(address)
        expected = remote.act(obs, noise)
        eventually(lambda: errors(address, "idle") == 1)
        np.testing.assert_array_equal(remote.act(obs, noise), expected)
    with pytest.raises(PolicyError, match=rf"^no policy server at {address} \(.*refused"):
        remote.act(obs, noise)
    port = int(address.rpartition(":")[2])
    other = serving(Sum().policy(control_hz=10.0), Settings(port=port))
    with other, pytest.raises(PolicyError, match="now serves another policy"):
        remote.act(obs, noise)
    with serving(first.policy(), Settings(port=port)):
        np.testing.assert_array_equal(remote.act(obs, noise), expected)
        remote.close()


def test_a_late_answer_is_never_taken():
    gate = threading.Event()
    planner = Sum(wait=lambda: gate.wait(5))
    with serving(planner.policy(), Settings(port=0)) as address, RemotePolicy(address, timeout_s=0.2) as remote:
        with pytest.raises(PolicyError, match=r"gave no answer within 0\.2 s"):
            remote.act(draw(0), np.ones((1, 4, 2)))
        gate.set()
        local = Sum().policy()
        for seed in (1, 2, 3):
            noise = np.full((1, 4, 2), seed)
            np.testing.assert_array_equal(remote.act(draw(seed), noise), local.act(draw(seed), noise))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"actions": np.zeros((1, 4, 2))}, r"to question None, not 0"),
        ({"actions": np.zeros((1, 4, 2)), "noisepilot": {"id": 7}}, r"to question 7, not 0"),
        ({"actions": np.zeros((4, 2)), "noisepilot": {"id": 0}}, r"actions of shape \(4, 2\), expected \(1, 4, 2\)"),
        ({"noisepilot": {"id": 0}}, "actions of shape None"),
        ({"actions": [1, 2], "noisepilot": {"id": 0}}, "expected a array for actions"),
        (b"\xc1", "expected a map"),
    ],
)
def test_a_wrong_answer_is_refused(answer, message):
    welcome = {**METADATA, "noisepilot": {"protocol": 1, "rows": 4, "digest": ""}}
    refused = pytest.raises(PolicyError, match=f"gave a wrong answer: .*{message}")
    with stand_in(lambda _: answer, welcome) as address, RemotePolicy(address) as remote, refused:
        remote.act(draw(0))


# Refusals


def test_other_specs_are_refused_on_both_sides(served):
    spec = Sum().policy().spec
    state = {**spec.observations["state"], "unit": "mm"}
    for change, message in (
        ({"control_hz": 30.0}, "it was made for 20 Hz, {} 30 Hz"),
        ({"action": {"shape": (8, 2)}}, "the shape of action is [4, 2], {} [8, 2]"),
        ({"observations": {**spec.observations, "state": state}}, "the unit of observation 'state' is 'm', {} 'mm'"),
        ({"observations": {"state": state}}, "it needs observation 'goal', {} are 'state'"),
    ):
        with pytest.raises(PolicyError) as refused:
            RemotePolicy(served, spec=dataclasses.replace(spec, **change))
        assert str(refused.value) == f"{served} serves another policy: {message.format('here')}"
        with raw(served) as socket:
            socket.send(pack({"noisepilot": {"expects": change}}))
            assert socket.recv(5) == f"this server serves another policy: {message.format('at the client')}"
            with pytest.raises(Exception, match="1008"):
                socket.recv(5)
    with raw(served) as socket:
        socket.send(
            pack({"noisepilot": {"expects": {"observations": {**SHAPES_AS_SPEC, "more": {}}, "control_hz": 20}}})
        )
        assert Reader(socket.recv(5)).entries().__next__() == "noisepilot"


SHAPES_AS_SPEC = {name: {"shape": shape} for name, shape in SHAPES.items()}


def test_token():
    with serving(Sum().policy(), Settings(port=0, token="word")) as address:
        for token in (None, "wrong", "wor", "w\xf6rd"):
            with pytest.raises(PolicyError, match="answers 401: the token is missing or wrong"):
                RemotePolicy(address, token=token)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(address, "/metrics")
        with RemotePolicy(address, token="word") as remote:
            assert remote.act(draw(0)).shape == (4, 2)
            assert get(address, "/healthz") == "OK\n"
            assert counted(address, 'errors_total{kind="unauthorized"}', token="word") == 5
    assert "word" not in repr(Settings(token="word"))


def test_pages_in_a_browser_and_surplus_clients_are_refused(served):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus, match="403"), connect(served, origin="https://example.org"):
        pass
    with serving(Sum().policy(), Settings(port=0, max_clients=1)) as address:
        with RemotePolicy(address), pytest.raises(PolicyError, match="503: it has as many clients as it takes"):
            RemotePolicy(address)
        eventually(lambda: counted(address, "clients") == 0)
        RemotePolicy(address).close()


def test_settings_and_addresses():
    with pytest.raises(UserError, match="max_batch must be at least 1"):
        Settings(max_batch=0)
    taken = pytest.raises(UserError, match=r"cannot listen on .*Address already in use")
    with serving(Sum().policy()) as address, taken:
        serving(Sum().policy(), Settings(port=int(address.rpartition(":")[2]))).__enter__()
    with pytest.raises(PolicyError, match="no policy server at ws://127"):
        RemotePolicy("ws://127.0.0.1:1")
    with (
        stand_in(lambda _: {}) as foreign,
        pytest.raises(PolicyError, match=r"does not say .* give spec=Spec\(\.\.\.\)"),
    ):
        RemotePolicy(foreign)

    def one_row(feeds):
        assert len(feeds["noise"]) == 1, "one row"
        return np.zeros((1, 4, 2), np.float32)

    with pytest.raises(UserError, match=r"the policy failed: one row: .* say --max-batch 1"):
        Server(Policy(one_row, METADATA))
    Server(Policy(one_row, METADATA), Settings(max_batch=1))


def test_says_what_to_install(monkeypatch, served):
    for module in ("msgpack", "websockets"):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, module, None)
            with pytest.raises(UserError, match=rf"{module} is missing: pip install 'noisepilot\[serve\]'"):
                Server(Sum().policy())
    monkeypatch.setitem(__import__("sys").modules, "websockets.sync.client", None)
    with pytest.raises(PolicyError, match="websockets is missing: pip install msgpack websockets"):
        RemotePolicy(served)


# Batches and counts


def test_what_waits_is_batched_and_every_row_keeps_its_noise():
    gate = threading.Event()
    policy = Sum(wait=lambda: gate.wait(5))
    clients, local = 7, Sum().policy()
    with serving(policy.policy(), Settings(port=0, max_batch=4)) as address, ThreadPoolExecutor(clients) as pool:

        def ask(seed):
            with RemotePolicy(address) as remote:
                return remote.act(draw(seed), generator=np.random.default_rng(seed))

        first = pool.submit(ask, 0)
        eventually(lambda: policy.rows == [1])
        others = [pool.submit(ask, seed) for seed in range(1, clients)]
        eventually(lambda: counted(address, "requests_total") == clients)
        gate.set()
        for seed, future in enumerate([first, *others]):
            expected = local.act(draw(seed), generator=np.random.default_rng(seed))
            np.testing.assert_array_equal(future.result(), expected)
        assert policy.rows == [1, 4, 2]
        assert counted(address, "batch_rows_sum") == clients
        assert counted(address, "batch_rows_count") == 3
        assert counted(address, "request_seconds_count") == clients


def test_a_policy_that_fails_is_said_and_the_server_goes_on():
    policy, noise = Sum(), np.ones((1, 4, 2))
    with serving(policy.policy(), Settings(port=0)) as address, RemotePolicy(address) as remote:
        policy.fail = RuntimeError("no more memory\nat all")
        with pytest.raises(PolicyError, match=r"the policy failed: no more memory$"):
            remote.act(draw(0), noise)
        policy.fail = None
        assert remote.act(draw(0), noise).shape == (4, 2)
        assert errors(address, "inference") == 1


def test_histogram_and_text():
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 9):
        histogram.observe(value)
    assert list(histogram.lines("x")) == [
        'x_bucket{le="1"} 2',
        'x_bucket{le="2"} 3',
        'x_bucket{le="+Inf"} 4',
        "x_sum 12",
        "x_count 4",
    ]
    for line in Metrics().text().splitlines():
        assert line.startswith(("# HELP noisepilot_", "# TYPE noisepilot_")) or float(line.rpartition(" ")[2]) == 0


# openpi


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
def test_openpis_published_client():
    module = pytest.importorskip(
        "openpi_client.websocket_client_policy", reason="pip install --no-deps openpi-client (it asks for numpy 1)"
    )
    local = Sum().policy()
    with serving(Sum().policy(), Settings(port=0, token="key")) as address:
        host, _, port = address.removeprefix("ws://").partition(":")
        client = module.WebsocketClientPolicy(host, int(port), api_key="key")
        try:
            said = client.get_server_metadata()
            assert said["noisepilot"]["protocol"] == 1
            assert said["observations"] == METADATA["observations"]
            assert json.loads(json.dumps(said)) == said
            noise = np.ones((1, 4, 2))
            for dtype in ("f4", "f8", "i8", ">f4", "i1"):
                obs = {**{k: v.astype(dtype) for k, v in draw(5).items()}, "prompt": "go", "x": np.float32(1), "n": [1]}
                answer = client.infer({**obs, "noisepilot": {"noise": noise}})
                np.testing.assert_array_equal(answer["actions"], local.act(draw(5), noise))
                assert answer["server_timing"].keys() >= {"infer_ms", "queue_ms"}
            assert answer["server_timing"]["prev_total_ms"] > 0
            drawn = [client.infer(draw(5))["actions"] for _ in range(2)]
            assert drawn[0].shape == (4, 2)
            assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
            with pytest.raises(
                RuntimeError, match=r"inference server:\nobservation 'goal' is missing: the policy expe"
            ):
                client.infer({"state": draw(5)["state"]})
            assert client.infer(draw(6))["actions"].shape == (4, 2)
        finally:
            client._ws.close()


def test_a_stand_in_of_openpis_server():
    seen = []

    def infer(obs):
        seen.append(obs)
        if obs["state"].sum() < 0:
            raise ValueError("arm is folded")
        return {"actions": np.full((4, 2), obs["state"].sum())}

    metadata = {**METADATA, "observations": {"state": {"shape": [1, 3]}, "camera": {"shape": [1, 2, 2, 3]}}}
    spec = Policy(Sum(), {**metadata, "n_obs_steps": 1}).spec
    obs = {"state": np.ones((1, 3), np.float32), "camera": np.full((2, 2, 3), 255, np.uint8), "prompt": "fold"}
    with stand_in(infer) as address, RemotePolicy(address, spec=spec) as remote:
        assert remote.act(obs, generator=np.random.default_rng(0)).tolist() == np.full((4, 2), 3.0).tolist()
        assert (seen[0]["state"].shape, seen[0]["camera"].dtype, seen[0]["prompt"]) == ((3,), np.uint8, "fold")
        with pytest.raises(PolicyError, match=r"ws://.*: ValueError: arm is folded$"):
            remote.act({**obs, "state": -obs["state"]})
        assert remote.act(obs).shape == (4, 2)  # on a new connection
        for bad, message in (
            ({"state": np.ones((2, 3))}, r"shape \(2, 3\), expected \(1, 3\) with one time"),
            ({"state": np.full(3, np.inf)}, "observation 'state' is not finite"),
            ({"state": "far"}, "not an array of numbers"),
        ):
            with pytest.raises(PolicyError, match=message):
                remote.act({**obs, **bad})
        with pytest.raises(PolicyError, match="observation 'camera' is missing"):
            remote.act({"state": obs["state"]})
        with pytest.raises(PolicyError, match="draws its noise itself"):
            remote.act(obs, np.zeros((1, 4, 2)))
        assert len(seen) == 3

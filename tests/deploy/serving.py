"""What the tests of the server share: a policy with known actions, raw connections, a stand-in of openpi's server."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

import numpy as np

from noisepilot.deploy.runtime import Policy

SHAPES = {"state": [2, 3], "goal": [2, 1]}
METADATA = {
    "schema": 1,
    "observations": {name: {"shape": shape, "names": [], "unit": "m"} for name, shape in SHAPES.items()},
    "action": {"shape": [4, 2], "unit": "N"},
    "noise_shape": [1, 4, 2],
    "control_hz": 20.0,
    "horizon": 4,
    "n_action_steps": 2,
    "n_obs_steps": 2,
    "env": "",
}


class Sum:
    """Actions are the noise plus the sum of the observations: every row has its own, and rounding has none."""

    def __init__(self, wait=lambda: None):
        self.rows, self.wait, self.fail = [], wait, None

    def __call__(self, feeds):
        rows = len(feeds["noise"])
        if feeds["noise"].any():  # not the warm-up
            self.rows.append(rows)
            self.wait()
            if self.fail is not None:
                raise self.fail
        total = np.sum([feeds[f"observation.{name}"].reshape(rows, -1).sum(1) for name in SHAPES], 0)
        return feeds["noise"][:, 0] + total[:, None, None]

    def policy(self, **changes) -> Policy:
        return Policy(self, {**METADATA, **changes})


def sum_as_onnx(onnx, path):
    """The same policy as a graph with a batch axis; returns the path."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {**{f"observation.{name}": shape for name, shape in SHAPES.items()}, "noise": [1, 4, 2]}
    inputs = [helper.make_tensor_value_info(name, number, ["batch", *shape]) for name, shape in shapes.items()]
    axes = [
        helper.make_tensor(name, onnx.TensorProto.INT64, [len(v)], v) for name, v in (("all", [1, 2]), ("one", [1]))
    ]
    nodes = [
        helper.make_node("ReduceSum", ["observation.state", "all"], ["s"]),
        helper.make_node("ReduceSum", ["observation.goal", "all"], ["g"]),
        helper.make_node("ReduceSum", ["noise", "one"], ["n"], keepdims=0),
        helper.make_node("Add", ["s", "g"], ["sum"]),
        helper.make_node("Add", ["n", "sum"], ["action"]),
    ]
    output = helper.make_tensor_value_info("action", number, ["batch", 4, 2])
    graph = helper.make_graph(nodes, "sum", inputs, [output], axes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    entry = model.metadata_props.add()
    entry.key, entry.value = "noisepilot", json.dumps(METADATA)
    path.write_bytes(model.SerializeToString())
    return path


def draw(seed, rows=()):
    """An observation, or a batch, of whole numbers."""
    rng = np.random.default_rng(seed)
    lead = (rows,) if isinstance(rows, int) else rows
    return {name: rng.integers(-9, 9, (*lead, *shape)).astype(np.float32) for name, shape in SHAPES.items()}


@contextmanager
def raw(address, **options):
    """A bare websocket, past the server's first frame."""
    from websockets.sync.client import connect

    with connect(address, compression=None, max_size=None, close_timeout=1, **options) as socket:
        socket.recv(5)
        yield socket


def eventually(check, seconds=5.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


@contextmanager
def stand_in(infer, metadata=None):
    """openpi's server as its protocol is published: its own class is not on PyPI. One thread, numpy's raw arrays.

    Every answer has `server_timing`; an error is sent as a traceback in a text frame, and ends the connection.
    """
    import msgpack
    from websockets.asyncio.server import serve

    from noisepilot.deploy.runtime.wire import pack

    def arrays(entry):
        if b"__ndarray__" not in entry:
            return entry
        return np.ndarray(entry[b"shape"], np.dtype(entry[b"dtype"]), entry[b"data"])

    async def converse(socket):
        await socket.send(pack(metadata or {}))
        async for frame in socket:
            try:
                answer = infer(msgpack.unpackb(frame, object_hook=arrays))
            except Exception as error:
                await socket.send(f"Traceback (most recent call last):\n  File ...\n{type(error).__name__}: {error}\n")
                await socket.close(1011)
                return
            await socket.send(
                answer if isinstance(answer, bytes) else pack({**answer, "server_timing": {"infer_ms": 1.0}})
            )

    loop, found, stop = asyncio.new_event_loop(), [], asyncio.Event()

    async def main():
        async with serve(converse, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
            found.append(server.sockets[0].getsockname()[1])
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    eventually(lambda: found)
    try:
        yield f"ws://127.0.0.1:{found[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()

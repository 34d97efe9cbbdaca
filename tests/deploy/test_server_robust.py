"""What strangers send: the server goes on, answers no wrong action, and a good client beside it notices nothing."""

import random
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.deploy.runtime import PolicyError, RemotePolicy
from noisepilot.deploy.runtime.wire import Reader, WireError, pack
from noisepilot.deploy.server import Settings, serving
from noisepilot.deploy.server.request import largest, read_request

from .serving import SHAPES, Sum, draw, eventually, raw
from .test_server import counted, errors

pytest.importorskip("websockets", reason="pip install 'noisepilot[serve]'")
msgpack = pytest.importorskip("msgpack", reason="pip install 'noisepilot[serve]'")

SPEC = Sum().policy().spec
NOISE = np.ones((1, 4, 2), np.float32)


@contextmanager
def good_client(address):
    """Asks all the while, and compares every answer with the local policy's."""
    local, stop, answers = Sum().policy(), threading.Event(), []

    def work():
        with RemotePolicy(address) as remote:
            seed = 0
            while not stop.is_set():
                seed += 1
                noise = np.full((1, 4, 2), seed)
                answers.append(np.array_equal(remote.act(draw(seed), noise), local.act(draw(seed), noise)))
                stop.wait(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
        before = len(answers)
        eventually(lambda: len(answers) > before + 2)
    finally:
        stop.set()
        thread.join()
    assert all(answers)


def array(**changes):
    """An array of the shape of `state` as it travels, with some entries changed or left out."""
    fields = {"__ndarray__": True, "dtype": "<f4", "shape": [2, 3], "data": bytes(24), **changes}
    return {key.encode(): value for key, value in fields.items() if value is not None}


GOAL = array(shape=[2, 1], data=bytes(8))
MALFORMED = {
    "nothing": (b"", "expected a map at byte 0"),
    "no map": (msgpack.packb([1]), "expected a map at byte 0"),
    "cut": (pack(draw(0))[:-3], "not msgpack"),
    "more": (pack(draw(0)) + b"\x00", "bytes follow the message"),
    "depth": (b"\x81\xa1x" + b"\x91" * 3000 + b"\x00", "not msgpack"),
    "promised": (b"\xdf\xff\xff\xff\xff", "4294967295 entries"),
    "promised bytes": (b"\x81\xa5state\x84\xc4\x04data\xc6\xff\xff\xff\xff", "msgpack"),
    "key": (b"\x81\x90\x01", "expected a key"),
    "twice": (b"\x82\xa1x\x01\xa1x\x02", "'x' comes twice"),
    "list": (msgpack.packb({"state": [[0.0] * 3] * 2}), "expected a array for state"),
    "object": (msgpack.packb({"state": array(dtype="|O", data=bytes(48))}), "has dtype '|O'"),
    "record": (msgpack.packb({"state": array(dtype="f4,f4", data=bytes(48))}), "has dtype 'f4,f4'"),
    "long": (msgpack.packb({"state": array(dtype="<f16", data=bytes(96))}), "has dtype '<f16'"),
    "complex": (msgpack.packb({"state": array(dtype="<c8", data=bytes(48))}), "has dtype '<c8'"),
    "huge": (msgpack.packb({"state": array(shape=[2**40, 2**40])}), "has 24 bytes, not those of shape"),
    "negative": (msgpack.packb({"state": array(shape=[-2, -3])}), "empty"),
    "axes": (msgpack.packb({"state": array(shape=[1] * 9)}), "9 entries, more than 8"),
    "pickle": (msgpack.packb({"state": array(data=None, pickle=b"cos\nsystem\n")}), "is no array"),
    "no data": (msgpack.packb({"state": array(data=None)}), "is no array"),
    "generic": (msgpack.packb({"state": {b"__npgeneric__": True, b"data": 1.0, b"dtype": "<f4"}}), "is no array"),
    "text": (b"\x81\xa5\xff\xff\xff\xff\xff\x01", "not msgpack"),
    "number": (pack({**draw(0), "noisepilot": {"id": 1.5}}), "expected a number"),
    "unknown": (pack({**draw(0), "noisepilot": {"sudo": 1}}), "'noisepilot' has no entry 'sudo'"),
    "expects": (pack({"noisepilot": {"expects": [1]}}), "'expects' has"),
    "expects list": (pack({"noisepilot": {"expects": {"observations": [1]}}}), "'expects' has"),
    "expects more": (pack({**draw(0), "noisepilot": {"expects": {}}}), "holds nothing else"),
    "expects much": (pack({"x": bytes(2**17), "noisepilot": {"expects": {}}}), "at most 65536 bytes"),
}
REFUSED = {
    "shape": (msgpack.packb({"state": array(shape=[3, 2])}), r"has shape (3, 2), expected (2, 3) or (B, 2, 3)"),
    "rows": (pack(draw(0, 9)), "observation 'state' has 9 rows, the server takes 8"),
    "missing": (pack({"state": draw(0)["state"]}), "observation 'goal' is missing"),
    "nan": (pack({**draw(0), "state": np.full((2, 3), np.nan)}), "observation 'state' is not finite"),
    "large": (pack({**draw(0), "state": np.full((2, 3), 1e300)}), "observation 'state' is not finite: inf"),
    "noise": (pack({**draw(0), "noisepilot": {"noise": np.full((1, 4, 2), np.inf)}}), "noise is not finite"),
    "batches": (pack({**draw(0, 2), "goal": draw(0, 3)["goal"]}), "differ in batch size"),
    "noises": (
        pack({**draw(0, 2), "noisepilot": {"noise": NOISE}}),
        "noise has shape (1, 4, 2), expected (2, 1, 4, 2)",
    ),
}


def test_every_bad_message_gets_one_line_and_the_next_good_one_its_answer():
    with serving(Sum().policy(), Settings(port=0, max_batch=8)) as address, good_client(address):
        with raw(address) as socket:
            for kind, cases in (("malformed", MALFORMED), ("refused", REFUSED)):
                for name, (frame, message) in cases.items():
                    socket.send(frame)
                    answer = socket.recv(5)
                    assert isinstance(answer, str), name
                    assert message in answer, (name, answer)
                    assert "\n" not in answer
                assert errors(address, kind) == len(cases)
            socket.send("{}")
            assert socket.recv(5) == "send msgpack in a binary frame, not text"
            socket.send(pack({**draw(2), "noisepilot": {"noise": NOISE, "id": 5}}))
            reader = Reader(socket.recv(5))
            keys = reader.entries()
            assert next(keys) == "actions"
            np.testing.assert_array_equal(reader.array("actions"), Sum().policy().act(draw(2), NOISE))
        assert errors(address, "internal") == 0


def test_questions_sent_ahead_are_answered_in_their_order():
    with serving(Sum().policy(), Settings(port=0)) as address, raw(address) as socket:
        for number in range(200):
            socket.send(pack({**draw(number), "noisepilot": {"noise": NOISE, "id": number}}))
        for number in range(200):
            answer = msgpack.unpackb(socket.recv(5))
            assert answer["noisepilot"]["id"] == number
            expected = Sum().policy().act(draw(number), NOISE)
            assert answer["actions"][b"data"] == expected.astype(np.float32).tobytes()


def test_too_large_a_message_ends_its_connection():
    limit = largest(SPEC, 4)
    with serving(Sum().policy(), Settings(port=0, max_batch=4)) as address, good_client(address):
        with raw(address) as socket:
            socket.send(pack({**draw(0), "x": bytes(limit - 1000)}))
            assert isinstance(socket.recv(5), bytes)
            socket.send(bytes(limit + 1))
            with pytest.raises(Exception, match="1009"):
                socket.recv(5)
        eventually(lambda: errors(address, "oversize") == 1)
        refused = pytest.raises(PolicyError, match=r"closed the connection: .*limit")
        with RemotePolicy(address) as remote, refused:
            remote._link.ask(bytes(limit + 1))


def test_clients_that_leave_in_mid_request():
    gate = threading.Event()
    gate.set()
    policy = Sum(wait=lambda: gate.wait(5))
    with serving(policy.policy(), Settings(port=0)) as address, good_client(address):
        for number in range(20):
            with raw(address) as socket:
                socket.send(pack({**draw(number), "noisepilot": {"noise": NOISE}}))
                if number % 2:
                    socket.socket.shutdown(2)  # without a closing frame
        gate.clear()
        with raw(address) as socket:
            socket.send(pack({**draw(0), "noisepilot": {"noise": NOISE}}))
            time.sleep(0.05)
        gate.set()
        eventually(lambda: counted(address, "clients") == 1)
        assert errors(address, "dropped") >= 1
        assert errors(address, "internal") == 0


def test_slow_readers_and_writers_are_sent_away():
    options = Settings(port=0, idle_s=0.3, send_s=0.3, handshake_s=0.3, max_batch=512)
    with serving(Sum().policy(), options) as address, good_client(address):
        with dial(address) as silent, shaken(address) as slow:
            slow.sendall(b"\x82\xfe\x01\x00")  # the beginning of a frame of 256 bytes
            assert ends(slow)
            assert ends(silent)  # it never said a word
        eventually(lambda: errors(address, "idle") == 1)
        question = masked(pack({**draw(0, 512), "noisepilot": {"noise": np.ones((512, 1, 4, 2))}}))
        with shaken(address) as deaf, suppress(OSError):
            deaf.settimeout(5)
            while errors(address, "slow") == 0:
                deaf.sendall(50 * question)
        eventually(lambda: counted(address, "clients") == 1)


def test_fuzzed_messages():
    rng = random.Random(0)
    valid = pack({**draw(3), "noisepilot": {"noise": NOISE, "id": 3}})
    frames = [mutated(valid, rng) if rng.random() < 0.7 else rng.randbytes(rng.randrange(200)) for _ in range(2000)]
    answered = 0
    with serving(Sum().policy(), Settings(port=0)) as address, good_client(address), raw(address) as socket:
        for first in range(0, len(frames), 100):  # sent ahead, so that this thread and the server's change turns less
            for frame in frames[first : first + 100]:
                socket.send(frame)
            for frame in frames[first : first + 100]:
                answer = socket.recv(5)
                if isinstance(answer, bytes):
                    answered += 1
                    check(frame, msgpack.unpackb(answer))
        assert errors(address, "internal") == 0
        assert 0 < answered < len(frames)
        assert errors(address, "malformed") + errors(address, "refused") + answered == len(frames)


def check(frame, answer):
    """An answer is what the local policy says to what the frame holds."""
    request = read_request(frame, SPEC, 16)
    assert answer.get("noisepilot", {}).get("id") == request.number
    shape = tuple(answer["actions"][b"shape"])
    assert shape == (*request.obs["state"].shape[:-2], 4, 2)
    if request.noise is not None:
        expected = Sum().policy().act(request.obs, request.noise)
        assert answer["actions"][b"data"] == expected.astype(np.float32).tobytes()


def mutated(frame, rng):
    """A few bytes changed, taken out or put in; often a cut."""
    content = bytearray(frame)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[at] = rng.randrange(256)
        elif kind == 1:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del content[at : at + rng.randrange(1, 5)]
        else:
            content[at:at] = rng.randbytes(rng.randrange(1, 5))
    return bytes(content[: rng.randrange(len(content))] if rng.random() < 0.1 else content)


def test_mutated_frames_hold_what_fits_or_are_refused():
    rng = random.Random(1)
    valid = pack({**draw(3, 2), "noisepilot": {"noise": np.ones((2, 1, 4, 2)), "id": 3}})
    for _ in range(4000):
        with suppress(PolicyError):
            for name, value in read_request(mutated(valid, rng), SPEC, 4).obs.items():
                assert value.shape in (tuple(SHAPES[name]), (len(value), *SHAPES[name]))


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300)
    | st.builds(
        msgpack.packb,
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats()
            | st.binary(max_size=30)
            | st.sampled_from(
                ["state", "goal", "noisepilot", "noise", "id", "expects", b"__ndarray__", b"data", b"shape", "<f4"]
            ),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from([*SHAPES, "noisepilot", "noise", "id", "expects", b"data", b"shape"]), inner
                )
            ),
            max_leaves=12,
        ),
    )
)
def test_reading_raises_nothing_else(frame):
    with suppress(PolicyError):
        for name, value in read_request(frame, SPEC, 4).obs.items():
            assert value.shape in (tuple(SHAPES[name]), (len(value), *SHAPES[name]))


def test_reader_takes_every_dtype_and_layout():
    values = np.arange(6).reshape(2, 3)
    for dtype in ("?", "i1", "u1", "<i2", ">u4", "<i8", "f2", "<f4", ">f8"):
        for value in (values.astype(dtype), np.asfortranarray(values.astype(dtype)), values.astype(dtype)[::-1]):
            reader = Reader(pack({"x": value}))
            for key in reader.entries():
                found = reader.array(key)
            np.testing.assert_array_equal(found, value)
            assert found.dtype == value.dtype
    for value in (np.array(["a"]), np.array([object()]), np.zeros(2, "c8"), np.zeros(2, "M8[s]")):
        with pytest.raises(TypeError, match="cannot travel"):
            pack({"x": value})
    with pytest.raises(WireError, match="is not msgpack"):
        Reader(b"\xc1").skip()


# Connections by hand


def dial(address):
    host, _, port = address.removeprefix("ws://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


@contextmanager
def shaken(address):
    """A plain socket after the handshake, whose receiving buffer is small."""
    with dial(address) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert plain.recv(12) == b"HTTP/1.1 101"
        yield plain


def masked(payload):
    """A binary frame of a client, masked by zeros."""
    return b"\x82\xff" + struct.pack(">Q", len(payload)) + bytes(4) + payload


def ends(plain):
    """Whether the other side hangs up."""
    try:
        while plain.recv(4096):
            pass
    except ConnectionError:
        pass
    return True

"""Foreign checkpoints are read whole, and nothing in them runs."""

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies.foreign.checkpoint import read_checkpoint
from noisepilot.policies.foreign.unpickler import MEANINGS, Opaque


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


class Config:
    """Stands for OmegaConf's: a class with state."""

    def __init__(self):
        self.content = {"horizon": 16}


class Listed(list):
    """Stands for containers of other packages."""


def test_tensors_share_what_they_shared(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    saved = {
        "model": net.state_dict(),
        "ema": collections.OrderedDict(a=whole, row=whole[1], transposed=whole.t(), again=whole),
        "types": [torch.tensor([1.5]).to(t) for t in (torch.bfloat16, torch.int64, torch.bool, torch.float64)],
        "odd": (torch.tensor(3.0), torch.empty(0, 5), torch.nn.Parameter(torch.ones(2)), whole.shape, torch.float16),
        "new types": torch.tensor([1, 2], dtype=torch.uint16),
        "epoch": 7,
        "note": "eps",
        "nothing": None,
    }
    torch.save(saved, tmp_path / "state_7.pt")
    found = read_checkpoint(tmp_path / "state_7.pt")
    assert list(found["model"]) == list(net.state_dict())
    for name, value in net.state_dict().items():
        assert torch.equal(found["model"][name], value)
        assert found["model"][name].dtype == value.dtype
    assert all(torch.equal(found["ema"][k], v) for k, v in saved["ema"].items())
    found["ema"]["a"][1, 2] = -1.0
    assert found["ema"]["row"][2] == found["ema"]["transposed"][2, 1] == found["ema"]["again"][1, 2] == -1.0
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found["types"], saved["types"], strict=True))
    scalar, empty, parameter, shape, dtype = found["odd"]
    assert (scalar.item(), empty.shape, parameter.tolist(), shape, dtype) == (
        3.0,
        (0, 5),
        [1.0, 1.0],
        (3, 4),
        torch.float16,
    )
    assert found["new types"].tolist() == [1, 2]
    assert (found["epoch"], found["note"], found["nothing"]) == (7, "eps", None)


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_runs(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    inner = pickle.dumps(Evil())
    listed = Listed([1, Evil()])
    saved = {
        "evil": Evil(),
        "cfg": Config(),
        "pickles": {"epoch": inner},
        "listed": listed,
        "number": np.float64(2.0),
        "weight": torch.ones(2),
    }
    torch.save(saved, "p.pt", pickle_protocol=protocol)
    found = read_checkpoint(Path("p.pt"))
    assert not Path("ran").exists()
    assert isinstance(found["evil"], Opaque)
    assert (found["evil"].path.partition(".")[2], found["evil"].args) == ("system", ("touch ran",))
    assert found["cfg"].path.endswith("Config")
    assert found["cfg"].state == {"content": {"horizon": 16}}
    assert found["pickles"]["epoch"] == inner
    assert found["listed"].items[0] == 1
    assert isinstance(found["number"], Opaque)
    assert found["weight"].tolist() == [1.0, 1.0]
    torch.load("p.pt", weights_only=False)  # the file is live ammunition
    assert Path("ran").exists()


def archive(path, program, extra=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a/data.pkl", program)
        for name, content in extra:
            file.writestr(name, content)
    return path


def rebuilt(size, stride, offset=0, key="0", numel=4, bare=False):
    """The program of one tensor, as torch.save writes it."""

    class Call:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, {})

    class Storage:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, key, "cpu", numel) if isinstance(obj, Storage) else None

    out = io.BytesIO()
    Writer(out, 2).dump(Call() if bare else {"w": Call()})
    return out.getvalue()


TENSOR = rebuilt((4,), (1,), bare=True)[:-1]
STORED = [("a/data/0", np.arange(4, dtype=np.float32).tobytes())]


def test_a_program_of_our_own_making_is_read(tmp_path):
    found = read_checkpoint(archive(tmp_path / "a.pt", rebuilt((2, 2), (2, 1)), STORED))
    assert found["w"].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("program", "extra", "words"),
    [
        (rebuilt((4, 4), (0, 1)), STORED, "more numbers than are stored"),
        (rebuilt((2**40, 2**40), (0, 0)), STORED, "more numbers than are stored"),
        (rebuilt((2,), (3,), 2), STORED, "is damaged"),
        (rebuilt((2,), (-1,), 2), STORED, "is damaged"),
        (rebuilt((1,), (1,), key="../../../etc/passwd"), STORED, "lacks the storage"),
        (rebuilt((1,), (1,)), [("../data/0", b"1234")], "lacks the storage"),
        (rebuilt((8,), (1,), numel=8), STORED, "more numbers than are stored"),
        (rebuilt((1,), (1,)), [*STORED, ("a/byteorder", b"big")], "big-endian"),
        (rebuilt((1,), (1,)), [*STORED, ("b/data.pkl", b"")], "holds no data.pkl"),
        (pickle.dumps([1]), [], "holds a list, not a dictionary"),
        (pickle.dumps({"a": 1})[:-4], [], "is damaged"),
        (b"\x80\x02}r\xff\xff\xff\xff.", [], None),  # a memo of four thousand million entries
        (b"\x80\x02\x82\x01.", [], "in a way that torch.save does not write"),
        (b"(S'touch ran'\nios\nsystem\n.", [], "in a way that torch.save does not write"),
        (b"", [], "is damaged"),
        (TENSOR + b"(K\x01\x90.", STORED, "fills a Tensor"),
        (TENSOR + b"(K\x00K\x01u.", STORED, "fills a Tensor"),
        (TENSOR + b"K\x00K\x01s.", STORED, "fills a Tensor"),
        (b"\x80\x02ctorch\nSize\n" + TENSOR[2:] + b"\x85R.", STORED, "makes a container of a Tensor"),
        (b"\x80\x02ccollections\nOrderedDict\n" + TENSOR[2:] + b"\x85R.", STORED, "makes a container of a Tensor"),
    ],
)
def test_damaged_and_hostile(tmp_path, program, extra, words):
    path = archive(tmp_path / "a.pt", program, extra)
    if words is None:
        assert read_checkpoint(path) == {}
        return
    with pytest.raises(UserError, match=words) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_state_cannot_change_what_reads_it(tmp_path):
    # A function, a class and a dictionary are given attributes: none takes them.
    names = ("torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "os\nsystem")
    parts = b"".join(b"c" + n.encode() + b"\n}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00zsb0" for n in names)
    before = {path: function.__name__ for path, function in MEANINGS.items()}
    assert read_checkpoint(archive(tmp_path / "a.pt", b"\x80\x02" + parts + b"}.")) == {}
    assert {path: function.__name__ for path, function in MEANINGS.items()} == before
    assert Opaque.path == ""


def test_other_files(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.ones(1000)}, tmp_path / "good.pt")
    content = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(content[: len(content) // 2])
    at = content.index(np.ones(1000, np.float32).tobytes())
    (tmp_path / "flipped.pt").write_bytes(content[: at + 2] + b"\x00" + content[at + 3 :])
    archive(tmp_path / "bomb.pt", pickle.dumps({"a": b"0" * 10_000_000}), compression=zipfile.ZIP_DEFLATED)
    for name, words in (
        ("old.pt", "torch 1.6 or later"),
        ("half.pt", "a damaged one"),
        ("flipped.pt", "a damaged one"),
        ("bomb.pt", "does not compress"),
        ("missing.pt", "cannot be read"),
    ):
        with pytest.raises(UserError, match=words) as error:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(error.value)
        assert name in str(error.value)

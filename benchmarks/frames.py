"""Pictures out of datasets, in frames per second: `data/random/<variant>` and `data/sequential/<variant>`.

One set of moving pictures, 96 x 96, stands on the disk once per format. Random: batches of 64 frames anywhere, as
training draws them; `memory` is the set as training holds it, `zarr` and `mp4` our readers of the files. Sequential:
the whole set from front to back, episode by episode. The peers read as the formats' own packages do:

    lerobot         each frame opens its mp4, seeks the key frame before it and decodes up to it
    lerobot-cached  the same with files that stay open
    parquet-png     each frame is a PNG in a column, decoded by itself
    hdf5            rows of an uncompressed array, a row a chunk, as robomimic stores pictures

The limit of sequential reading is a bare loop that decodes and converts to RGB. Files lie in the cache of the
operating system; no number is one of a disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from ..datasets import zarr_layout
from ..datasets.chunks import Chunks
from ..datasets.episodes import Episodes
from ..datasets.lerobot import LeRobotSource, open_source
from ..datasets.lerobot_writer import write
from ..datasets.resident import Resident
from ..datasets.source import Recorded
from ..datasets.video import VideoReader, decode_picture, pyav
from ..errors import UserError
from .limits import Limits
from .race import Effort, Row, Variant, race, ratios

CAMERA, FPS = "observation.images.front", 10.0
BATCH, SIZE, STEPS = 64, 96, 100


def random_frames(limits: Limits, effort: Effort) -> Iterator[Row]:
    """A batch of frames from anywhere."""
    with ExitStack() as stack:
        shelf = Shelf(stack, effort)
        rng = np.random.default_rng(0)
        peers = {
            "lerobot": shelf.lerobot,
            "lerobot-cached": shelf.lerobot_cached,
            "parquet-png": shelf.parquet,
            "hdf5": shelf.hdf5,
        }
        ours = {"memory": shelf.memory, "zarr": shelf.zarr, "mp4": shelf.mp4}
        draw = partial(rng.integers, 0, shelf.count, BATCH)
        seconds = race({name: Variant(partial(_drawn, take, draw)) for name, take in (ours | peers).items()}, effort)
    for name, best in seconds.items():
        faster = ratios(seconds, name, peers) if name in ours else None
        yield Row(f"data/random/{name}", BATCH / best, "frames/s", None, faster)


def sequential_frames(limits: Limits, effort: Effort) -> Iterator[Row]:
    """The whole set, an episode at a time."""
    with ExitStack() as stack:
        shelf = Shelf(stack, effort)
        ours = {"zarr": shelf.walk_zarr, "mp4": shelf.walk_mp4}
        peers = {name: partial(take, np.arange(shelf.count)) for name, take in shelf.by_frame().items()}
        bare = {"bare": shelf.bare}
        once = replace(effort, burst=1)  # a call is long
        seconds = race({name: Variant(run) for name, run in (ours | peers | bare).items()}, once)
        limit = seconds.pop("bare")
        count = shelf.count
    for name, best in seconds.items():
        fraction = limit / best if name in ("mp4", "lerobot-cached") else None
        faster = ratios(seconds, name, peers) if name in ours else None
        yield Row(f"data/sequential/{name}", count / best, "frames/s", fraction, faster)
    yield Row("data/sequential/bare", count / limit, "frames/s")


class Shelf:
    """One set in every format, in a folder that goes with the stack.

    Raises:
        UserError: where a format's package is missing.
    """

    def __init__(self, stack: ExitStack, effort: Effort) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.episodes = _moving(min(effort.envs, 10))
        self.count = self.episodes.num_steps
        self.episodes.write(self.folder / "zarr")
        write(self.folder / "lerobot", Resident(self.episodes))
        self._array: Any = zarr.open_group(self.folder / "zarr", mode="r")[f"data/{CAMERA}"]
        self._chunks = Chunks(self.episodes, horizon=1)
        self._source: LeRobotSource = open_source(self.folder / "lerobot")
        self.film = self._source.entries[0].clips[CAMERA].path
        self._reader = stack.enter_context(VideoReader(self.film))
        self._container: Any = stack.enter_context(pyav().open(str(self.film)))
        self._hdf5: Any = stack.enter_context(self._open_hdf5())["frames"]

    def memory(self, rows: np.ndarray) -> Any:
        """The windows that training gathers."""
        return self._chunks.batch(torch.from_numpy(rows))

    def zarr(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the compressed array on the disk."""
        return self._array.oindex[np.sort(rows)]

    def mp4(self, rows: np.ndarray) -> np.ndarray:
        """Our reader, going forwards through the batch."""
        return self._reader.read(np.sort(rows) / FPS, 0.5 / FPS)

    def lerobot(self, rows: np.ndarray) -> list[np.ndarray]:
        """One file opened per frame."""
        frames = []
        for row in rows.tolist():
            with pyav().open(str(self.film)) as container:
                frames.append(_sought(container, row / FPS))
        return frames

    def lerobot_cached(self, rows: np.ndarray) -> list[np.ndarray]:
        """One file that stays open."""
        return [_sought(self._container, row / FPS) for row in rows.tolist()]

    def parquet(self, rows: np.ndarray) -> list[np.ndarray]:
        """Pictures of a column."""
        return [decode_picture(self._column[row].as_py(), "frame") for row in rows.tolist()]

    def hdf5(self, rows: np.ndarray) -> np.ndarray:
        """Rows one by one, as a dataset's `__getitem__` reads them."""
        return np.stack([self._hdf5[row] for row in rows.tolist()])

    def by_frame(self) -> dict[str, Callable[[np.ndarray], Any]]:
        """Formats that are read frame by frame also from front to back."""
        return {"lerobot-cached": self.lerobot_cached, "parquet-png": self.parquet, "hdf5": self.hdf5}

    def walk_zarr(self) -> None:
        """Our reader of our layout."""
        _exhaust(zarr_layout.open_source(self.folder / "zarr").episodes())

    def walk_mp4(self) -> None:
        """Our reader of LeRobot's."""
        _exhaust(open_source(self.folder / "lerobot").episodes())

    def bare(self) -> None:
        """Decoding and colours alone."""
        with pyav().open(str(self.film)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")

    @cached_property
    def _column(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pictures = pa.table({"picture": pa.array([_png(frame) for frame in self.episodes.data[CAMERA]], pa.binary())})
        pq.write_table(pictures, self.folder / "pictures.parquet")
        return pq.read_table(self.folder / "pictures.parquet", memory_map=True).column("picture").combine_chunks()

    def _open_hdf5(self) -> Any:
        try:
            import h5py
        except ImportError:
            raise UserError("this benchmark needs h5py: pip install 'noisepilot[bench]'") from None
        frames = self.episodes.data[CAMERA]
        with h5py.File(self.folder / "frames.hdf5", "w") as file:
            file.create_dataset("frames", data=frames, chunks=(1, *frames.shape[1:]))
        return h5py.File(self.folder / "frames.hdf5", "r")


def _moving(count: int) -> Episodes:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    time = np.arange(count * STEPS)[:, None, None]
    planes = (columns + 5 * time, rows + 3 * time, rows + columns + time)
    frames = np.stack([127.5 * (1 + np.sin(plane / 40)) for plane in planes], -1).astype(np.uint8)
    action = np.random.default_rng(0).uniform(-1, 1, (len(frames), 2)).astype(np.float32)
    ends = STEPS * np.arange(1, count + 1)
    return Episodes(
        {CAMERA: frames, "action": action}, ends, {"fps": FPS, "source": "moving", "env": "", "licence": ""}
    )


def _sought(container: Any, time: float) -> np.ndarray:
    stream = container.streams.video[0]
    container.seek(int(time / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        if frame.time >= time - 0.5 / FPS:
            return frame.to_ndarray(format="rgb24")
    raise UserError(f"no frame at {time} s")


def _png(frame: np.ndarray) -> bytes:
    from fractions import Fraction

    codec: Any = pyav().CodecContext.create("png", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    picture = pyav().VideoFrame.from_ndarray(frame, format="rgb24")
    return b"".join(map(bytes, [*codec.encode(picture), *codec.encode(None)]))


def _drawn(take: Callable[[np.ndarray], Any], draw: Callable[[], np.ndarray]) -> None:
    take(draw())


def _exhaust(episodes: Iterator[Recorded]) -> None:
    for _ in episodes:
        pass

"""Pictures out of compressed files: frames of an mp4 by time, and single PNG or JPEG pictures; through PyAV.

A reader goes through its file once, forwards: what is asked for next is decoded from where the last request
ended. A file is read as the format it claims to be, so none can name other files for FFmpeg to open.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from ..errors import UserError

SKIP_SECONDS = 1.0
"""a request farther ahead than this is sought, not decoded up to"""
_PICTURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "mjpeg"}


def pyav() -> ModuleType:
    """The package `av`.

    Raises:
        UserError: where it is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("video needs PyAV: pip install 'noisepilot[lerobot]'") from None
    return av


class VideoReader:
    """Frames of one video file; close it, or use it as a context manager.

    Raises:
        UserError: where PyAV or the file is missing, or it is no video.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._av = path, pyav()
        if not path.is_file():
            raise UserError(f"{path} is missing: restore the video")
        self._now: Any = None
        self._ahead: Any = None
        with self._naming():
            self._container = self._av.open(str(path), format="mp4")
            if not self._container.streams.video:
                self._container.close()
                raise UserError(f"{path} holds no video")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            self._seek(0.0)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        self._frames.close()
        self._container.close()

    def read(self, times: np.ndarray, tolerance: float) -> np.ndarray:
        """The frames nearest to `times`.

        Args:
            times: (L,) seconds, best in rising order: a step back seeks.
            tolerance: seconds a frame may be away from its time.

        Returns:
            (L, H, W, 3) uint8, RGB.

        Raises:
            UserError: for a time without a frame, or a damaged file.
        """
        pictures = np.empty((0, 0, 0, 3), np.uint8)
        with self._naming():
            for i, time in enumerate(np.asarray(times, np.float64).tolist()):
                picture = self._nearest(time, tolerance).to_ndarray(format="rgb24")
                if i == 0:
                    pictures = np.empty((len(times), *picture.shape), np.uint8)
                if picture.shape != pictures.shape[1:]:
                    raise UserError(f"{self.path}: the picture's size changes at {time:.3f} s")
                pictures[i] = picture
        return pictures

    def _nearest(self, time: float, tolerance: float) -> Any:
        newest = self._ahead or self._now
        if time < self._now.time - tolerance or time > newest.time + SKIP_SECONDS:
            self._seek(time)
        while self._ahead is not None and abs(self._ahead.time - time) <= abs(self._now.time - time):
            self._now, self._ahead = self._ahead, next(self._frames, None)
        if abs(self._now.time - time) > tolerance:
            what = "is shorter than its table: it ends" if self._ahead is None else "has a gap: the nearest frame is"
            there = f"{what} at {self._now.time:.3f} s, but a frame at {time:.3f} s is needed"
            raise UserError(f"{self.path} {there}; record or copy it anew")
        return self._now

    def _seek(self, time: float) -> None:
        for start in (time, time - 2.0, 0.0):  # some files name their key frames too late
            self._container.seek(int(max(start, 0.0) / self._stream.time_base), stream=self._stream)
            self._frames = self._decode()
            self._now, self._ahead = next(self._frames, None), next(self._frames, None)
            if self._now is not None and self._now.time <= time:
                return
        if self._now is None:
            raise UserError(f"{self.path} holds no frames: record or copy it anew")

    def _decode(self) -> Generator[Any, None, None]:
        for frame in self._container.decode(self._stream):
            if frame.time is not None:
                yield frame

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except self._av.error.FFmpegError as error:
            raise UserError(f"{self.path} is not a readable mp4 (damaged or cut off?): {error.strerror}") from error


def decode_picture(content: bytes, name: str) -> np.ndarray:
    """(H, W, 3) uint8 of one PNG or JPEG file's bytes.

    Raises:
        UserError: naming `name`, for other or damaged content.
    """
    av = pyav()
    codec = next((codec for magic, codec in _PICTURES.items() if content.startswith(magic)), None)
    if codec is None:
        raise UserError(f"{name} holds a picture that is neither PNG nor JPEG")
    try:
        context = av.CodecContext.create(codec, "r")
        frames = [*context.decode(av.Packet(content)), *context.decode(None)]
    except av.error.FFmpegError as error:
        raise UserError(f"{name} holds a damaged picture: {error.strerror}") from error
    if not frames:
        raise UserError(f"{name} holds a damaged picture")
    return frames[0].to_ndarray(format="rgb24")

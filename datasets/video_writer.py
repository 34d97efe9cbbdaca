"""Frames into an mp4, one after the other; through PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, unknown
from .video import pyav

CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"crf": "18", "preset": "veryfast", "bf": "0"}),
    "lossless": ("libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast", "bf": "0"}),
}
"""name -> encoder, pixel format, its options; `lossless` is H.264 that gives every pixel back"""
KEY_FRAMES = 2
"""every second frame can be decoded without more than one other: training reads frames in random order"""


class VideoWriter:
    """One mp4 that grows by frames of equal size; complete once closed.

    Args:
        path: file to write.
        fps: frames per second.
        codec: a name of `CODECS`.
        size: (height, width) of every frame.

    Raises:
        UserError: where PyAV or its encoder is missing, or the codec cannot hold that size.
    """

    def __init__(self, path: Path, fps: Fraction, codec: str, size: tuple[int, int]) -> None:
        if codec not in CODECS:
            raise unknown("codec", codec, CODECS)
        av = pyav()
        encoder, pixels, options = CODECS[codec]
        if pixels == "yuv420p" and (size[0] % 2 or size[1] % 2):
            raise UserError(
                f"codec {codec} holds pictures of even size only, not {size[0]}x{size[1]}: take codec lossless"
            )
        self.path, self.count = path, 0
        self._make, self._format = av.VideoFrame.from_ndarray, pixels
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._container = av.open(str(path), "w", format="mp4")
            self._stream: Any = self._container.add_stream(encoder, rate=fps, options={**options, "g": str(KEY_FRAMES)})
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(f"this PyAV cannot encode {codec} ({encoder}): take another codec") from error
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = pixels
        self._stream.codec_context.time_base = 1 / fps

    def write(self, frames: np.ndarray) -> None:
        """Append frames (L, H, W, 3) uint8."""
        for frame in frames:
            picture = self._make(np.ascontiguousarray(frame), format="rgb24").reformat(format=self._format)
            picture.pts, picture.time_base = self.count, self._stream.codec_context.time_base
            self._container.mux(self._stream.encode(picture))
            self.count += 1

    def close(self) -> None:
        """Write what the encoder still holds and the file's index."""
        if self.count:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def facts(self) -> dict[str, Any]:
        """What LeRobot records of a video feature."""
        return {
            "video.height": self._stream.height,
            "video.width": self._stream.width,
            "video.codec": "h264",
            "video.pix_fmt": "gbrp" if self._format == "rgb24" else self._format,
            "video.is_depth_map": False,
            "video.channels": 3,
            "has_audio": False,
        }

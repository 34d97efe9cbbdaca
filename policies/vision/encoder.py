"""The seam between a policy and networks for pictures, whatever they are made of.

Shapes: B batch, T observations, H height, W width, C channels, S state of one time, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...shapes import Float
from .augment import Jitter, centre_crop, crop, draw_crop, draw_jitter, draw_shift, jitter, shift

Shape = tuple[int, int, int]
"""(H, W, C)"""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one augmentation of B observations: all times of one observation change alike."""

    places: Mapping[str, Tensor]
    """camera -> corners (B, 2) of shifts or crops"""
    colours: Mapping[str, Tensor]
    """camera -> factors (B, 4), see `draw_jitter`"""

    def rows(self, which: slice | Tensor) -> Draws:
        """Those of some observations."""
        return replace(
            self,
            places={name: draws[which] for name, draws in self.places.items()},
            colours={name: draws[which] for name, draws in self.colours.items()},
        )


class Encoder(nn.Module):
    """Pictures as cameras give them, beside the normalised state, to features.

    A subclass makes features of `pixels`; here stands what all do with pictures before.
    """

    whole: int = 0
    """length of the features that belong to all times together; they come first"""
    per_step: tuple[int, ...] = ()
    """lengths of features at one time; they follow one after the other, each with all its times"""

    def __init__(
        self,
        images: Mapping[str, Shape],
        n_obs_steps: int,
        *,
        pad: int = 0,
        window: tuple[int, int] | None = None,
        colours: Jitter | None = None,
    ) -> None:
        super().__init__()
        if not images:
            raise UserError("an encoder needs a camera, but no picture is observed: set policy.encoder to none")
        self.images, self.n_obs_steps = dict(images), n_obs_steps
        self.pad, self.window, self.colours = pad, window, colours
        for name, (height, width, channels) in images.items():
            if window and (window[0] > height or window[1] > width):
                raise UserError(f"crop {window} is larger than camera '{name}', {(height, width)}: make it smaller")
            if colours and channels != 3:
                raise UserError(f"camera '{name}' with {channels} channels has no colours to change: set jitter to 0")

    @property
    def cameras(self) -> list[str]:
        """Their names, in the order of their features."""
        return list(self.images)

    def common_shape(self) -> Shape:
        """Shape of all cameras' pictures, for networks that they share.

        Raises:
            UserError: if they differ.
        """
        first, *others = self.images.items()
        for name, shape in others:
            if shape != first[1]:
                raise UserError(
                    f"cameras '{first[0]}' {first[1]} and '{name}' {shape} differ in size and share one network: "
                    "make them equal, or leave one out (policy.observe)"
                )
        return first[1]

    def draw(self, batch: int, generator: torch.Generator) -> Draws | None:
        """Numbers that augment `batch` observations; None where nothing is augmented."""
        places, colours = {}, {}
        for name, (height, width, _) in self.images.items():
            if self.pad:
                places[name] = draw_shift(batch, self.pad, generator)
            elif self.window:
                places[name] = draw_crop(batch, (height, width), self.window, generator)
            if self.colours:
                colours[name] = draw_jitter(batch, self.colours, generator)
        return Draws(places, colours) if places or colours else None

    def forward(
        self, state: Float[Tensor, "B T S"], images: Mapping[str, Tensor], augment: Draws | None = None
    ) -> Float[Tensor, "B F"]:
        """Features of pictures, name -> (B, T, H, W, C) uint8.

        Raises:
            UserError: for a missing camera, or pictures of another shape or type.
        """
        raise NotImplementedError

    def pixels(self, name: str, images: Mapping[str, Tensor], augment: Draws | None) -> Float[Tensor, "B T C H W"]:
        """One camera's pictures in [0, 1], augmented or cut in the middle."""
        picture = self._checked(name, images).movedim(-1, 2)
        times = picture.shape[1]
        placed = self._placed(picture.flatten(1, 2), augment and augment.places.get(name))
        values = placed.unflatten(1, (times, -1)).to(next(self.parameters()).dtype) / 255
        if augment and self.colours:
            draws = augment.colours[name].repeat_interleave(times, 0)
            values = jitter(values.flatten(0, 1), draws).unflatten(0, (-1, times))
        return values

    def _placed(self, picture: Tensor, corners: Tensor | None) -> Tensor:
        """Shifted or cropped while the pictures are bytes; without corners, the middle."""
        if self.window:
            return centre_crop(picture, self.window) if corners is None else crop(picture, corners, self.window)
        return picture if corners is None else shift(picture, corners, self.pad)

    def _checked(self, name: str, images: Mapping[str, Tensor]) -> Tensor:
        expected = (self.n_obs_steps, *self.images[name])
        if name not in images:
            raise UserError(f"camera '{name}' is missing: the policy expects {self.cameras}, got {list(images)}")
        picture = images[name]
        shape = tuple(picture.shape)
        if shape[1:] != expected:
            height, width, channels = self.images[name]
            first = shape[1:] == (self.n_obs_steps, channels, height, width)
            hint = ": channels come last" if first else ""
            raise UserError(f"camera '{name}' has shape {shape}, expected (B, {', '.join(map(str, expected))}){hint}")
        if picture.dtype != torch.uint8:
            raise UserError(f"camera '{name}' is {picture.dtype}, expected uint8 of shape (B, *{expected}): 0 to 255")
        return picture

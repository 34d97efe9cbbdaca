"""What the weights of DPPO's ViT show of the encoder, and of the cameras it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ...errors import UserError
from ...spec import ArraySpec
from ..vision import ViT
from ..vision.vit import count_patches

_ENCODER = "encoder."


def has_encoder(named: Mapping[str, Tensor]) -> bool:
    """The network, under our names, sees pictures."""
    return any(name.startswith(_ENCODER) for name in named)


def encoder_of(named: Mapping[str, Tensor], encoder: ViT) -> ViT:
    """The encoder with the sizes of these weights; heads and augmentation stay."""
    place, embedding = (named[_ENCODER + name] for name in ("transformer.place", "embeddings.0.weight"))
    return replace(
        encoder,
        patches="overlapping" if f"{_ENCODER}transformer.cut.2.weight" in named else "separate",
        width=place.shape[2],
        depth=_count(named, "transformer.blocks"),
        features=embedding.shape[2],
    )


def features_of(named: Mapping[str, Tensor], encoder: ViT) -> int:
    """How many numbers it makes of the pictures of all cameras."""
    return _count(named, "embeddings") * encoder.features


def check_pictures(
    named: Mapping[str, Tensor], encoder: ViT | None, pictures: Mapping[str, ArraySpec], times: int
) -> None:
    """Refuse pictures that are not those the encoder was trained with; `times` observations are seen.

    Raises:
        UserError: for another number of cameras or times, or pictures of another size.
    """
    cameras = _count(named, "embeddings") if encoder else 0
    if len(pictures) != cameras:
        shown = f"{len(pictures)} ({', '.join(pictures)})" if pictures else "none"
        raise UserError(
            f"sees {cameras} camera{'s' * (cameras != 1)}, the policy would see {shown}: name what it was trained "
            "with, in its order (--policy.observe), or choose an environment that shows it"
        )
    if encoder is None:
        return
    channels, patches = named[f"{_ENCODER}transformer.cut.0.weight"].shape[1], named[f"{_ENCODER}transformer.place"]
    for name, array in pictures.items():
        height, width, colours = array.shape
        if channels != times * colours:
            raise UserError(
                f"sees {channels / colours:g} pictures of {colours} channels and {times} states in a decision: only "
                "as many of one as of the other are imported"
            )
        if (count := count_patches(encoder, (height, width))) != patches.shape[1]:
            raise UserError(
                f"cuts a picture into {patches.shape[1]} patches, and '{name}' of {(height, width)} has {count}: let "
                "the environment draw the size that it was trained with"
            )


def _count(named: Mapping[str, Tensor], part: str) -> int:
    start = f"{_ENCODER}{part}."
    return len({name.removeprefix(start).partition(".")[0] for name in named if name.startswith(start)})

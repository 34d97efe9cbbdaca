"""Shapes in annotations: jaxtyping where it is installed (tests check them), plain tensors elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class _Plain:
            """`Float[Tensor, "B H A"]` means `Tensor` where shapes are not checked."""

            def __class_getitem__(cls, item: Any) -> Any:
                return item[0]

        Bool = Float = Int = _Plain

__all__ = ["Bool", "Float", "Int"]

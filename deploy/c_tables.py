"""The numbers of a policy as C definitions: every matrix transposed and padded, so that loops over outputs run on.

Two arrays hold everything, `np_weights` the matrices and `np_floats` what is added to a layer; `np_layer`s point into
them. Of bfloat16 weights a 32-bit word holds two, columns j and j + half of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
LANES = 32
"""outputs are padded to a multiple of this; then half a row is a multiple of 16 still"""


class Tables:
    """What `player.c` reads.

    Args:
        arrays: those of `arrays.chain_arrays`.
        facts: those of `arrays.chain_facts`, and `weights`, the matrices' precision.
        times: observations that the policy sees.
    """

    def __init__(self, arrays: Arrays, facts: Mapping[str, Any], times: int) -> None:
        self.arrays, self.halved = arrays, facts["weights"] == "bfloat16"
        self.words: list[np.ndarray] = []
        self.floats: list[np.ndarray] = []
        self.layers: list[str] = []
        self.widest = LANES
        """padded size of the largest layer"""
        parts = ["frozen", "tuned"] if facts["first_tuned"] else ["tuned"]
        self.networks = [self._network(part) for part in parts]
        horizon = arrays["tuned.from_x"].shape[1] // arrays["action.center"].size
        self.small = {
            "np_steps[5 * NP_STEPS]": arrays["coefficients"].T.ravel(),
            **{
                f"np_observation_{key}[NP_FEATURES]": np.concatenate(
                    [np.tile(arrays[f"observation.{name}.{key}"].ravel(), times) for name in facts["observations"]]
                )
                for key in ("center", "scale")
            },
            "np_action_center[NP_CHUNK]": np.tile(arrays["action.center"], horizon),
            "np_action_half[NP_CHUNK]": np.tile(arrays["action.half"], horizon),
        }

    def definitions(self) -> str:
        """The end of the file."""
        weights = np.concatenate(self.words)
        tables = {
            **{f"const float {name}": c_floats(values) for name, values in self.small.items()},
            "NP_ALIGNED const float np_floats[]": c_floats(np.concatenate(self.floats)),
            "NP_ALIGNED const np_word np_weights[]": _words(weights) if self.halved else c_floats(weights),
        }
        written = [f"static {name} = {{\n{values}\n}};" for name, values in tables.items()]
        networks = "static const np_network np_networks[] = {\n" + ",\n".join(self.networks) + "\n};"
        return "\n".join([*written, *self.layers, networks, ""])

    def _network(self, part: str) -> str:
        condition, known_condition = self._list(part, "condition")
        layers, known_layers = self._list(part, "layers")
        from_condition = self._layer(self.arrays[part + ".from_condition"], self.arrays[part + ".bias"])
        from_x = self._layer(self.arrays[part + ".from_x"], None)
        time = self._add(self.arrays[part + ".time"])
        first = f"{known_condition}, {known_layers}, {condition}, {from_condition}, {from_x}"
        return f"    {{{first}, {time}, {layers}}}"

    def _list(self, part: str, kind: str) -> tuple[str, int]:
        """Define an array of layers; its name, and how many they are."""
        arrays, prefix, layers = self.arrays, f"{part}.{kind}", []
        while (at := f"{prefix}.{len(layers)}") + ".weight" in arrays:
            layers.append(self._layer(arrays[at + ".weight"], arrays[at + ".bias"]))
        if not layers:
            return "NULL", 0
        name = f"np_{part}_{kind}"
        self.layers.append(f"static const np_layer {name}[] = {{{', '.join(layers)}}};")
        return name, len(layers)

    def _layer(self, weight: np.ndarray, bias: np.ndarray | None) -> str:
        matrix = _padded(weight.T)  # (inputs, padded outputs)
        rows, columns = matrix.shape
        self.widest = max(self.widest, columns, rows + -rows % LANES)
        if self.halved:
            bits = matrix.view(np.uint32) >> 16
            matrix = bits[:, : columns // 2] | bits[:, columns // 2 :] << 16
        at = sum(words.size for words in self.words)
        self.words.append(matrix.ravel())
        return f"{{{rows}, {columns}, np_weights + {at}, {'NULL' if bias is None else self._add(bias[None])}}}"

    def _add(self, rows: np.ndarray) -> str:
        at = sum(floats.size for floats in self.floats)
        self.floats.append(_padded(rows).ravel())
        return f"np_floats + {at}"


def c_floats(values: np.ndarray) -> str:
    """Float32 numbers to the bit, eight per line."""
    # float.hex() has the digits of a double, of which a float32 needs six.
    numbers = (v.hex().replace("0000000p", "p") + "f" for v in np.asarray(values, np.float32).tolist())
    return _lines(numbers, 8)


def _words(values: np.ndarray) -> str:
    return _lines((f"{v}u" for v in values.tolist()), 10)


def _padded(matrix: np.ndarray) -> np.ndarray:
    return np.pad(np.asarray(matrix, np.float32), ((0, 0), (0, -matrix.shape[1] % LANES)))


def _lines(items: Iterable[str], count: int) -> str:
    listed = list(items)
    return ",\n".join(", ".join(listed[i : i + count]) for i in range(0, len(listed), count))

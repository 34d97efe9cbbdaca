"""A policy as one C99 file without dependencies: its interface, `player.c`, and its tables.

The file computes what `runtime/chain.py` computes, from the same arrays.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .c_tables import Arrays, Tables, c_floats

Metadata = Mapping[str, Any]
ACTIVATIONS = ("relu", "mish", "gelu", "tanh", "silu")
KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    alignas alignof asm bool catch class constexpr delete explicit export false friend mutable namespace new noexcept
    nullptr operator private protected public template this throw true try typename using virtual
"""
"""names that no field can have, in C or in C++"""
_TEXT = "static const char np_metadata[NP_METADATA_SIZE] ="
_INTERFACE = """\
#include <stdint.h>

#define NOISEPILOT_HORIZON %(horizon)d /* actions per decision */
#define NOISEPILOT_ACTION_DIM %(dim)d
#define NOISEPILOT_N_ACTION_STEPS %(n_action_steps)d /* of them, how many to execute */
#define NOISEPILOT_N_OBS_STEPS %(n_obs_steps)d /* observations seen, the newest last */
#define NOISEPILOT_NOISE_SIZE %(noise)d /* %(noise_shape)s standard normal numbers */
#define NOISEPILOT_CONTROL_HZ %(hz)s /* actions per second; 0: unknown */

/* What noisepilot_act returns; action is written only where that is NOISEPILOT_OK. */
#define NOISEPILOT_OK 0
#define NOISEPILOT_BAD_OBSERVATION 1 /* it holds NaN or infinity */
#define NOISEPILOT_BAD_NOISE 2 /* likewise */
#define NOISEPILOT_BAD_ACTION 3 /* numbers so large that the action would be NaN or infinite */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct { /* physical units */
%(fields)s
} noisepilot_observation;

/* One decision, in physical units; the same noise gives the same action. Working memory is static: one call at a time,
   bounded in time. */
int noisepilot_act(const noisepilot_observation *observation, const float *noise,
                   float action[NOISEPILOT_HORIZON][NOISEPILOT_ACTION_DIM]);

/* Fill noise with NOISEPILOT_NOISE_SIZE numbers; *state is any seed at first, and changes. */
void noisepilot_draw(uint64_t *state, float *noise);

/* JSON: names, units, limits, configuration, provenance, certificate. */
const char *noisepilot_metadata(void);

#ifdef __cplusplus
}
#endif
"""


def c_source(arrays: Arrays, text: str) -> bytes:
    """The whole file.

    Args:
        arrays: those of `arrays.chain_arrays`.
        text: metadata as JSON; its `chain` says also of which precision the `weights` are, and matrices of `bfloat16`
            have been rounded to it.

    Raises:
        UserError: for weights that are not finite.
    """
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError("not exported: the policy's weights are not finite; take another checkpoint")
    metadata = json.loads(text)
    # JSON may escape the question marks in its strings, so that none begins a trigraph.
    text = text.replace("?", "\\u003f")
    tables = Tables(arrays, metadata["chain"], metadata["n_obs_steps"])
    parts = [
        c_comment(_head(metadata)),
        _interface(metadata),
        "#ifndef NOISEPILOT_DECLARATIONS\n",
        _settings(arrays, metadata, tables.widest, len(text)),
        Path(__file__).with_name("player.c").read_text(encoding="utf-8"),
        _literal(text),
        tables.definitions(),
        "#endif /* NOISEPILOT_DECLARATIONS */",
    ]
    return ("\n".join(parts) + "\n").encode()


def read_metadata(source: bytes) -> dict[str, Any]:
    """The metadata inside a file made by `c_source`."""
    pieces = source.decode().partition(_TEXT)[2].partition(";\n")[0].splitlines()
    return json.loads("".join(json.loads(piece) for piece in pieces if piece))


def c_comment(lines: Iterable[str]) -> str:
    """A comment that no line of it can end."""
    plain = (" ".join(line.replace("\\", "/").splitlines()) for line in lines)
    safe = [line.replace("*/", "* /").replace("/*", "/ *") for line in plain]
    return "/* " + "\n".join(f"   {line}".rstrip() for line in safe).lstrip() + " */"


def c_names(names: Iterable[str]) -> list[str]:
    """The names as different identifiers."""
    taken: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = f"{plain}_" if re.search(rf"\b{plain}\b", KEYWORDS) else plain
        plain = f"_{plain}" if not plain or plain[0].isdigit() else plain
        while plain in taken:
            plain += "_"
        taken.append(plain)
    return taken


def _head(metadata: Metadata) -> list[str]:
    rate = f"{metadata['control_hz']:g} Hz" if metadata["control_hz"] else "an unknown rate"
    return [
        f"A policy, written by `noisepilot export`; weights in {metadata['chain']['weights']}. C99, allocates nothing.",
        "",
        '    #include "policy.c"                in one file of a program',
        "    #define NOISEPILOT_DECLARATIONS    before that line in every other one, and in C++",
        "    cc -O3 -march=native robot.c -lm",
        "    cc -O3 -march=native -DNOISEPILOT_MAIN policy.c -lm    a filter: float32 observation and noise to action",
        "",
        f"Made for {metadata['env'] or 'no known environment'} at {rate}.",
        "",
        *(line for name, array in metadata["observations"].items() for line in _array(f"Observation {name}", array)),
        *_array("Action", metadata["action"]),
        *_certificate(metadata),
    ]


def _array(what: str, array: Metadata) -> list[str]:
    said = [f"{what}: {' x '.join(map(str, array['shape']))}, unit {array['unit'] or 'unknown'}."]
    said += [f"Elements: {', '.join(array['names'])}."] if array["names"] else []
    for low, high, meaning in (("low", "high", "Limits"), ("seen_low", "seen_high", "In training")):
        if array[low] is not None and array[high] is not None:
            said.append(f"{meaning}: {', '.join(map(_range, array[low], array[high]))}.")
    first, *rest = said
    return [first, *(line for text in rest for line in _wrapped(text)), ""]


def _range(low: float | None, high: float | None) -> str:
    return f"[{', '.join('-' if bound is None else f'{bound:g}' for bound in (low, high))}]"


def _certificate(metadata: Metadata) -> list[str]:
    if "parity" not in metadata:
        return []
    parity = metadata["parity"]
    said = (
        f"Certificate: compiled by {parity['backend']}, within {parity['max_relative_difference']:.1e} of the action "
        f"range of the policy in torch {parity['torch']} over {parity['observations']} observations "
        f"({parity['source']})."
    )
    if "rounding" in parity:
        mean, most = (parity["rounding"][key] for key in ("mean_relative_difference", "max_relative_difference"))
        said += f" Its weights were rounded before, which moved actions by {mean:.1e} on average, {most:.1e} at most."
    return textwrap.wrap(said, 110)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="    ", subsequent_indent="    ")


def _interface(metadata: Metadata) -> str:
    observations, (horizon, dim) = metadata["observations"], metadata["action"]["shape"]
    fields = [
        f"    float {field}[{array['shape'][0]}][{array['shape'][1]}]; {c_comment([name])}"
        for (name, array), field in zip(observations.items(), c_names(observations), strict=True)
    ]
    return _INTERFACE % {
        **metadata,
        "horizon": horizon,
        "dim": dim,
        "noise": math.prod(metadata["noise_shape"]),
        "noise_shape": " x ".join(map(str, metadata["noise_shape"])),
        "hz": f"{metadata['control_hz']:g}",
        "fields": "\n".join(fields),
    }


def _settings(arrays: Arrays, metadata: Metadata, widest: int, characters: int) -> str:
    facts = metadata["chain"]
    bounds = {f"NP_{key.upper()}": facts[key] for key in ("clip_data", "clip_mean", "noise_clip")}
    values = {
        **{f"NP_{name.upper()}": i for i, name in enumerate(ACTIVATIONS)},
        "NP_ACTIVATION": f"NP_{facts['activation'].upper()}",
        "NP_RESIDUAL": int(facts["residual"]),
        "NP_BFLOAT16": int(facts["weights"] == "bfloat16"),
        "NP_STEPS": arrays["coefficients"].shape[1],
        "NP_FIRST_TUNED": facts["first_tuned"],
        "NP_FEATURES": sum(math.prod(array["shape"]) for array in metadata["observations"].values()),
        "NP_CHUNK": "(NOISEPILOT_HORIZON * NOISEPILOT_ACTION_DIM)",
        "NP_WIDEST": widest,
        "NP_METADATA_SIZE": characters + 1,
        **{name: c_floats(np.array([bound])) for name, bound in bounds.items() if bound is not None},
    }
    return "\n".join([*(f"#define {name} {value}" for name, value in values.items()), ""])


def _literal(text: str) -> str:
    pieces = (json.dumps(text[i : i + 100]) for i in range(0, len(text), 100))
    return "\n".join([_TEXT, *pieces, ";\n"])

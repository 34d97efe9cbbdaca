"""`noisepilot-runtime check policy.onnx`: what a file is, and whether its certificate holds on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .backends import BACKENDS
from .policy import Policy
from .remote import open_policy
from .spec import PolicyError
from .verify import Verification


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if the certificate holds, 1 if it does not, 2 if the file cannot be used."""
    parser = argparse.ArgumentParser("noisepilot-runtime", description="Policies exported by noisepilot.")
    check = parser.add_subparsers(dest="verb", required=True).add_parser(
        "check", help="print what a file is, and make its certificate's decisions again on this machine"
    )
    check.add_argument("policy", help="file written by `noisepilot export`, or address of `noisepilot serve`")
    check.add_argument("--backend", help="what shall play it; by default numpy or onnxruntime", choices=BACKENDS)
    options = parser.parse_args(argv)
    try:
        policy = open_policy(options.policy, backend=options.backend)
        print("\n".join(describe(policy, options.policy)))
        found = policy.verify()
    except PolicyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(verdict(found))
    return 0 if found.holds else 1


def describe(policy: Policy, name: str) -> list[str]:
    """The specification as lines of text."""
    spec, path = policy.spec, Path(name)
    size = f"{file_size(path)}, " if path.is_file() else ""
    rate = f"{spec.control_hz:g} Hz" if spec.control_hz else "unknown rate"
    arrays = {f"observation.{key}": value for key, value in spec.observations.items()} | {"action": spec.action}
    parity = policy.metadata.get("parity") or {}
    width = max(map(len, arrays))
    lines = [
        f"{name}: {size}for {spec.env or 'no known environment'} at {rate}",
        *(f"  {key:{width}}  {_array(value)}" for key, value in arrays.items()),
        f"  {spec.n_action_steps} of {spec.horizon} actions are played per decision",
    ]
    if "max_relative_difference" in parity:
        lines.append(
            f"written: {parity['backend']} within {parity['max_relative_difference']:.1e} of the action range "
            f"of torch {parity['torch']} over {parity['observations']} observations ({parity['source']})"
        )
    return lines


def file_size(path: Path) -> str:
    """In words."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def verdict(found: Verification) -> str:
    """The result of a check as one line."""
    word = "holds" if found.holds else "DOES NOT HOLD"
    return (
        f"here: {found.backend} within {found.max_relative_difference:.1e} over {found.examples} examples; "
        f"the certificate {word} (tolerance {found.tolerance:.0e})"
    )


def _array(array: Mapping[str, Any]) -> str:
    kind = array.get("dtype", "float32")
    names, unit = " ".join(array.get("names") or ()), array.get("unit", "")
    return "  ".join(part for part in (f"{kind} {array['shape']}", unit, names) if part)


if __name__ == "__main__":
    sys.exit(main())

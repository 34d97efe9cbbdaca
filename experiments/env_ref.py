"""An environment by name, as configurations and command lines give it; free of torch and simulators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from ..errors import UserError
from ..spec import EnvSpec


def json_mapping(text: str) -> dict[str, Any]:
    """A JSON object from the command line.

    Raises:
        UserError: for anything else.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"'{text}' is not a JSON object: write it like '{{\"key\": 1}}'")
    return value


JSON = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="JSON",
    instance_from_str=lambda words: json_mapping(words[0]),
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda value: [json.dumps(value)],
)


@dataclass(frozen=True)
class EnvRef:
    """The environment: `--env ID --env-kwargs JSON`."""

    id: Annotated[str, tyro.conf.arg(name="env", prefix_name=False)] = ""
    """registered id or `package.module:factory`"""
    kwargs: Annotated[dict[str, Any], JSON, tyro.conf.arg(name="env-kwargs", prefix_name=False)] = field(
        default_factory=dict
    )
    """keyword arguments of the environment, as JSON"""

    def spec(self) -> EnvSpec:
        """Its facts.

        Raises:
            UserError: for an environment that cannot be made.
        """
        from ..envs import make_core

        core = make_core(self.id, **self.kwargs)
        core.close()
        return core.spec

    def or_else(self, env: str, kwargs: Mapping[str, Any]) -> EnvRef:
        """This environment, with `kwargs` if it is `env` itself; `env` if none was named.

        Raises:
            UserError: if neither names one.
        """
        if not (self.id or env):
            raise UserError("nothing given names an environment: give --env")
        if not self.id and ":" in env:
            # A file from a stranger must not choose what is imported and called here.
            raise UserError(f"the policy was made for {env}, which is code: if you trust it, say --env {env}")
        same = self.id in ("", env)
        return EnvRef(self.id or env, self.kwargs or (dict(kwargs) if same else {}))

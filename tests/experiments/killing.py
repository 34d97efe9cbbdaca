"""A process that runs verbs in forked children and kills them; its own, so that a fork finds a single thread.

Standard input: a JSON list of steps `{"argv": [...], "kill": ...}`; standard output: JSON of their ends. A kill is

    null                                      none
    0.4                                       SIGKILL from outside after 0.4 of the first step's duration
    ["module:path.to.function", n]            SIGKILL at the n-th call
    ["module:path.to.function", n, "SIGINT"]  another signal
    ["half", n]                               SIGKILL when half of the n-th binary file is written
"""

import json
import os
import signal
import sys
import time
from functools import reduce
from importlib import import_module
from pathlib import Path

# Imported once, so that no child has to: the verbs' modules, and what they import late.
import rich.live  # noqa: F401
import torch._dynamo  # noqa: F401

from noisepilot.envs import classic, locomotion, mujoco_core, native, remote  # noqa: F401
from noisepilot.experiments import checkpoint, evaluate, finetune, offpolicy, pretrain  # noqa: F401
from noisepilot.experiments.cli import main
from noisepilot.policies import matmul


def arm(target: str, nth: int, name: str = "SIGKILL") -> None:
    """Replace a function by one that sends a signal to its own process at the n-th call."""
    count = 0

    def lethal(*args, **kwargs):
        nonlocal count
        count += 1
        if count == nth:
            if target == "half":
                with open(args[0], "wb") as file:
                    file.write(args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), getattr(signal, name))
        return original(*args, **kwargs)

    owner, attribute = (Path, "write_bytes") if target == "half" else find(target)
    original = getattr(owner, attribute)
    setattr(owner, attribute, lethal)


def find(target: str):
    """The owner of a dotted name inside a module, and the last name."""
    module, _, path = target.partition(":")
    *owners, attribute = path.split(".")
    return reduce(getattr, owners, import_module(module)), attribute


def run(argv: list[str], kill, whole: float) -> tuple[int, float]:
    """Exit code, or the negative signal, and seconds of one child."""
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        if isinstance(kill, list):
            arm(*kill)
        code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if isinstance(kill, float):
        time.sleep(kill * whole)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - started


if __name__ == "__main__":
    matmul._probe = lambda: False  # which kernel is faster is measured, and so no fact of a run
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell start without
    whole, ends = 0.0, []
    answers = os.dup(1)
    os.dup2(2, 1)  # what verbs print is not the answer
    for step in json.load(sys.stdin):
        code, seconds = run(step["argv"], step["kill"], whole)
        whole = whole or seconds
        ends.append(code)
    os.write(answers, json.dumps(ends).encode())

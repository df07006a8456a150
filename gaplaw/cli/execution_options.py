"""How do the options of a command change the execution that an experiment asks for? Only what is given changes it.

The command line is read before the experiment is executed, once: an option that is not given is absent, not a default.
So a word's place does not matter, `--help` needs no experiment, and what the experiment says stands until somebody says
otherwise.
"""

from __future__ import annotations

import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, TypedDict

from tyro.conf import arg

from gaplaw.spec import Execution, Sweep
from gaplaw.spec.execution import with_options


def options_of(kind: type) -> type:
    """A dictionary type with the fields of a dataclass, each of which may be absent: its options on a command line."""
    hints, found = typing.get_type_hints(kind), {}
    for field in fields(kind):
        found[field.name] = hint = hints[field.name]
        if is_dataclass(hint):
            found[field.name] = options_of(hint)
        elif field.default is not MISSING:
            usual = f"else {field.default}" if field.default != "" else "if any"
            found[field.name] = Annotated[hint, arg(help_behavior_hint=f"(the experiment's, {usual})")]
    made = TypedDict(f"{kind.__name__}Options", found, total=False)
    made.__doc__ = kind.__doc__  # tyro takes the help of each option from here
    return made


ExecutionOptions = Annotated[options_of(Execution), arg(name="")]
NO_OPTIONS: dict = {}


def load_with_options(experiment: str, options: dict) -> tuple[Sweep, Execution]:
    """The sweep of an experiment file, which is executed once, and how to run it: as it says, but for the options.

    Raises: SweepError for a file that cannot be used; SpecError for options that cannot be.
    """
    from gaplaw.sweep.planning.load import load

    sweep, own = load(experiment)
    return sweep, with_options(own, options)

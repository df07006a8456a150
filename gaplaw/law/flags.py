"""What does a law refuse to say, and why? One typed flag per reason, machine-readable and with a sentence for people.

Sits at the foot of the law half of the walk: the fit raises flags, the choice passes them on, the report prints them. A
flag never changes a number; it says how far the number may be trusted. Severity: 'note' (worth knowing), 'warning' (the
answer stands on a weak leg), 'refusal' (there is no answer: the optimum is None).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SEVERITIES = ("note", "warning", "refusal")
FEWEST_TEACHERS = 5
FEWEST_STUDENTS = 3


@dataclass(frozen=True, slots=True)
class Flag:
    """One reason to doubt or refuse: `kind` for machines, `message` for people, `severity` as above."""

    kind: str
    message: str
    severity: str = "warning"

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity: {self.severity!r} must be one of {', '.join(SEVERITIES)}")

    def to_dict(self) -> dict:
        """Its three fields, as JSON wants them."""
        return {"kind": self.kind, "message": self.message, "severity": self.severity}

    @classmethod
    def from_dict(cls, data: dict) -> Flag:
        """The flag that `to_dict` gave."""
        return cls(**data)


def refuses(flags: Iterable[Flag]) -> bool:
    """Whether any flag is a refusal."""
    return any(flag.severity == "refusal" for flag in flags)


def worst_first(flags: Iterable[Flag]) -> tuple[Flag, ...]:
    """The same flags, refusals first, each (kind, message) once."""
    unique = {(flag.kind, flag.message): flag for flag in flags}
    return tuple(sorted(unique.values(), key=lambda flag: -SEVERITIES.index(flag.severity)))

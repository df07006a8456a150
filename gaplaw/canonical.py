"""How does a specification become plain JSON, an identity, and back? Used by every frozen dataclass of the walk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing

from gaplaw.errors import SpecError


def refuse_unless(rule_holds: bool, where: str, value: object, rule: str) -> None:
    """Raise SpecError naming the field, the value and the rule, unless the rule holds."""
    if not rule_holds:
        raise SpecError(f"{where} = {value!r}: {rule}")


def short_hash(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def later(default: object):
    """A dataclass field that came after the first release: while it has its default it stands in no JSON and no hash.

    So what was made before there was such a field keeps its identity.
    """
    return dataclasses.field(default=default, metadata={"later": True})


def to_dict(value: object) -> object:
    """A spec as plain JSON values: dataclasses become dicts, tuples become lists; see `later` for what is left out."""
    if dataclasses.is_dataclass(value):
        fields = [
            f for f in dataclasses.fields(value) if "later" not in f.metadata or getattr(value, f.name) != f.default
        ]
        return {f.name: to_dict(getattr(value, f.name)) for f in fields}
    return [to_dict(item) for item in value] if isinstance(value, tuple) else value


def from_dict(kind: type, value: object):
    """The inverse of `to_dict`: `from_dict(Cell, to_dict(cell)) == cell`.

    Raises: SpecError when a field is unknown or of the wrong kind.
    """
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(value) - set(hints)
        refuse_unless(not unknown, kind.__name__, sorted(unknown), "has no such field")
        return kind(**{name: from_dict(hints[name], item) for name, item in value.items()})
    if isinstance(kind, types.UnionType):  # int | tuple[int, ...], Cell | None
        chosen = [k for k in typing.get_args(kind) if (value is None) == (k is types.NoneType)]
        sequence = [k for k in chosen if typing.get_origin(k) is tuple]
        return from_dict(sequence[0] if isinstance(value, list) else chosen[0], value)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(from_dict(item, v) for v in value)
    return value

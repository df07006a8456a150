"""How does a specification become plain JSON, an identity, and back? Used by every frozen dataclass of the walk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing

from gaplaw.errors import SpecError


def refuse_unless(rule_holds: bool, where: str, value: object, rule: str) -> None:
    """Raise SpecError naming the field, the value and the rule, unless the rule holds."""
    if not rule_holds:
        raise SpecError(f"{where} = {value!r}: {rule}")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def short_hash(value: object) -> str:
    return hashlib.sha256(_CANONICAL(value).encode()).hexdigest()[:12]


def to_dict(value: object, *, without: tuple[str, ...] = ()) -> object:
    """A spec as plain JSON values: dataclasses become dicts, tuples become lists. `without`: fields of it to leave out."""
    fields = _fields(type(value))
    if fields is not None:
        return {f.name: to_dict(getattr(value, f.name)) for f in fields if f.name not in without}
    return [to_dict(item) for item in value] if isinstance(value, tuple) else value


@functools.cache
def _fields(kind: type) -> tuple[dataclasses.Field, ...] | None:
    """The fields of a dataclass; None of any other kind."""
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else None


def from_dict(kind: type, value: object, *, made: dict | None = None):
    """The inverse of `to_dict`: `from_dict(Cell, to_dict(cell)) == cell`.

    What stands in the value many times, such as the teacher of many students, is made once and shared (`made`, by its text).
    Raises: SpecError when a field is unknown or of the wrong kind.
    """
    made = {} if made is None else made
    if dataclasses.is_dataclass(kind):
        key = (kind, repr(value))  # text, because 1 and 1.0 are equal but not the same
        if key not in made:
            made[key] = _filled(kind, value, made)
        return made[key]
    if isinstance(kind, types.UnionType):  # int | tuple[int, ...], Cell | None
        chosen = [k for k in typing.get_args(kind) if (value is None) == (k is types.NoneType)]
        sequence = [k for k in chosen if typing.get_origin(k) is tuple]
        return from_dict(sequence[0] if isinstance(value, list) else chosen[0], value, made=made)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if dataclasses.is_dataclass(item):  # many, and no two the same
            return tuple(_filled(item, v, made) for v in value)
        return tuple(from_dict(item, v, made=made) for v in value)
    return value


def _filled(kind: type, value: dict, made: dict) -> object:
    hints = _hints(kind)
    unknown = set(value) - set(hints)
    refuse_unless(not unknown, kind.__name__, sorted(unknown), "has no such field")
    return kind(**{name: from_dict(hints[name], item, made=made) for name, item in value.items()})


@functools.cache
def _hints(kind: type) -> dict[str, object]:
    return typing.get_type_hints(kind)

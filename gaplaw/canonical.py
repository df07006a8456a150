"""How does a specification become plain JSON, an identity, and back? Used by every frozen dataclass of the walk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
import types
import typing

from gaplaw.errors import SpecError

LONGEST_SHOWN = 300


def refuse_unless(rule_holds: bool, where: str, value: object, rule: str) -> None:
    """Raise SpecError naming the field, the value and the rule, unless the rule holds."""
    if not rule_holds:
        raise SpecError(f"{where} = {_shown(value)}: {rule}")


def _shown(value: object) -> str:
    """A value in one line of moderate length; some values cannot be shown at all."""
    try:
        text = " ".join(repr(value).split()) if not isinstance(value, str) else repr(value)
    except Exception:  # a whole number of thousands of digits, or an object that cannot say what it is
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} …"


def check_fields(spec: object) -> None:
    """Hold every field of a frozen dataclass to its declared kind; the first line of a `__post_init__`.

    NumPy's numbers become Python's and lists become tuples, so that a specification survives JSON.
    Raises: SpecError for a value of another kind, a number that is not finite, or a whole number of more than 64 bits.
    """
    for name, kind in _declared(type(spec)):
        value = getattr(spec, name)
        plain = _plain(value, kind, f"{type(spec).__name__}.{name}")
        if plain is not value:
            object.__setattr__(spec, name, plain)


@functools.cache
def _declared(kind: type) -> tuple[tuple[str, object], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(kind))


def _plain(value: object, kind: object, where: str) -> object:
    """The value as a declared kind holds it. Raises: SpecError."""
    if isinstance(kind, types.UnionType):  # int | tuple[int, ...], Cell | None
        absent = value is None and types.NoneType in typing.get_args(kind)
        return None if absent else _plain(value, _branch(kind, value), where)
    if typing.get_origin(kind) is tuple:
        refuse_unless(isinstance(value, list | tuple), where, value, "must be a tuple")
        item = typing.get_args(kind)[0]
        plain = tuple(_plain(each, item, where) for each in value)
        return value if type(value) is tuple and all(map(operator.is_, plain, value)) else plain
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        refuse_unless(isinstance(value, str) and value in choices, where, value, f"must be one of {', '.join(choices)}")
        return str(value)
    if kind in (int, float, bool) and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # a NumPy number
    if kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        refuse_unless(whole and abs(value) < 2**63, where, value, "must be a whole number (of at most 64 bits)")
    elif kind is float:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        refuse_unless(real and abs(value) < 2**1023, where, value, "must be a finite number")
        return value or 0 * abs(value)  # -0.0 is 0.0
    else:
        refuse_unless(isinstance(value, kind), where, value, f"must be a {kind.__name__}")
        return str(value) if kind is str and type(value) is not str else value
    return value


def _branch(kind: types.UnionType, value: object) -> object:
    """Which part of a union a value is meant for: its own class or its kind's, None, a sequence, or the first other one."""
    named = value.get("kind") if isinstance(value, dict) else None
    for part in typing.get_args(kind):
        if type(value) is part or (named is not None and getattr(part, "kind", None) == named):
            return part
    chosen = [k for k in typing.get_args(kind) if (value is None) == (k is types.NoneType)] or typing.get_args(kind)
    sequence = [k for k in chosen if typing.get_origin(k) is tuple]
    return sequence[0] if sequence and isinstance(value, list | tuple) else chosen[0]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def short_hash(value: object) -> str:
    return hashlib.sha256(_CANONICAL(value).encode()).hexdigest()[:12]


def later(default: object):
    """A dataclass field that came after the first release: while it has its default it stands in no JSON and no hash.

    So what was made before there was such a field keeps its identity.
    """
    return dataclasses.field(default=default, metadata={"later": True})


def to_dict(value: object, *, without: tuple[str, ...] = ()) -> object:
    """A spec as plain JSON values: dataclasses become dicts, tuples become lists; see `later` for what is left out.

    Args: without: fields of the value itself to leave out.
    """
    fields = _fields(type(value))
    if fields is not None:
        return ({"kind": value.kind} if getattr(value, "kind_in_json", False) else {}) | {
            f.name: to_dict(getattr(value, f.name))
            for f in fields
            if f.name not in without and ("later" not in f.metadata or getattr(value, f.name) != f.default)
        }
    return [to_dict(item) for item in value] if isinstance(value, tuple) else value


@functools.cache
def _fields(kind: type) -> tuple[dataclasses.Field, ...] | None:
    """The fields of a dataclass; None of any other kind."""
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else None


def from_dict(kind: type, value: object, *, made: dict | None = None):
    """The inverse of `to_dict`: `from_dict(Cell, to_dict(cell)) == cell`.

    What stands in the value many times, such as the teacher of many students, is made once and shared (`made`, by its
    text).
    Raises: SpecError when a field is unknown or of the wrong kind.
    """
    made = {} if made is None else made
    if dataclasses.is_dataclass(kind):
        key = (kind, repr(value))  # text, because 1 and 1.0 are equal but not the same
        if key not in made:
            made[key] = _filled(kind, value, made)
        return made[key]
    if isinstance(kind, types.UnionType):
        return from_dict(_branch(kind, value), value, made=made)
    if typing.get_origin(kind) is tuple:
        refuse_unless(isinstance(value, list | tuple), "a list of values", value, "must be a list")
        item = typing.get_args(kind)[0]
        if dataclasses.is_dataclass(item):  # many, and no two the same
            return tuple(_filled(item, v, made) for v in value)
        return tuple(from_dict(item, v, made=made) for v in value)
    return value


def _filled(kind: type, value: object, made: dict) -> object:
    refuse_unless(isinstance(value, dict), kind.__name__, value, "must be an object of fields")
    if value.get("kind") is not None and value["kind"] == getattr(kind, "kind", None):
        value = {name: item for name, item in value.items() if name != "kind"}
    hints = dict(_declared(kind))
    unknown = set(value) - set(hints)
    refuse_unless(not unknown, kind.__name__, sorted(unknown), "has no such field")
    needed = [f.name for f in _fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    absent = [name for name in needed if name not in value]
    refuse_unless(not absent, kind.__name__, absent, "lacks these fields")
    return kind(**{name: from_dict(hints[name], item, made=made) for name, item in value.items()})

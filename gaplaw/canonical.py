"""How does a specification become plain JSON, an identity, and back? Used by every frozen dataclass of the walk.

One rule decides what stands in the JSON, and so in every hash of it: a field at its default does not. So a new field
changes no identity of what was made before it. Two things go with the rule:

- `VERSION_1`, a class attribute, names the fields that stood there at their defaults before there was the rule, and
  still do. It never grows: a new field is not named in it, and its default never changes.
- `kind`, a class attribute, tells the classes of a union apart: it stands in the JSON, too. The first class of a union
  may lack it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import marshal
import operator
import types
import typing
from collections.abc import Sequence

from gaplaw.errors import SpecError

LONGEST_SHOWN = 300
_arguments, _origin = functools.cache(typing.get_args), functools.cache(typing.get_origin)


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
        if type(value) is kind and kind not in (int, float):  # most fields: nothing to look at
            continue
        plain = _plain(value, kind, f"{type(spec).__name__}.{name}")
        if plain is not value:
            object.__setattr__(spec, name, plain)


@functools.cache
def _declared(kind: type) -> tuple[tuple[str, object], ...]:
    hints = typing.get_type_hints(kind)
    for field in _fields(kind):
        _specs_in(hints[field.name])  # refuses classes that nothing tells apart
    return tuple((field.name, hints[field.name]) for field in _fields(kind))


def _plain(value: object, kind: object, where: str) -> object:
    """The value as a declared kind holds it. Raises: SpecError."""
    if isinstance(kind, types.UnionType):  # int | tuple[int, ...], Cell | None
        if value is None and types.NoneType in _arguments(kind):
            return None
        branch = _branch(kind, value)
        if _is_spec(branch):
            rule = f"must be a {' or '.join(one.__name__ for one in _arguments(kind) if _is_spec(one))}"
            refuse_unless(isinstance(value, branch), where, value, rule)
        return _plain(value, branch, where)
    if _origin(kind) is tuple:
        refuse_unless(isinstance(value, list | tuple), where, value, "must be a tuple")
        item = _arguments(kind)[0]
        plain = tuple(_plain(each, item, where) for each in value)
        return value if type(value) is tuple and all(map(operator.is_, plain, value)) else plain
    if _origin(kind) is typing.Literal:
        choices = _arguments(kind)
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
    """Which part of a union a value is meant for: None, a sequence, its own class, or the first."""
    chosen = [k for k in _arguments(kind) if (value is None) == (k is types.NoneType)] or _arguments(kind)
    sequence = [k for k in chosen if _origin(k) is tuple]
    if sequence and isinstance(value, list | tuple):
        return sequence[0]
    return next((k for k in chosen if _is_spec(k) and isinstance(value, k)), chosen[0])


# The one JSON text of a value, whatever the order of its fields: what is hashed.
canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def short_hash(value: object) -> str:
    return text_hash(canonical_json(value))


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_dict(value: object) -> object:
    """A spec as plain JSON values: dataclasses become dicts, tuples become lists; see `stated_fields` for what is left
    out.
    """
    if _is_spec(type(value)):
        return {name: to_dict(item) for name, item in stated_fields(value)}
    return [to_dict(item) for item in value] if isinstance(value, tuple) else value


def stated_fields(spec: object) -> list[tuple[str, object]]:
    """The fields of a dataclass that stand in its JSON and in its hash, with their values: the rule of this module."""
    kind = _kind(type(spec))
    stated = [(name, getattr(spec, name)) for name, default in _defaults(type(spec)) if getattr(spec, name) != default]
    return [("kind", kind), *stated] if kind else stated


def label(spec: object) -> str:
    """What a part of a recipe says of itself in a protocol: `soft=0.5|T=2`, `jsd|beta=0.3`; empty at the default.

    Its kind, then its own `label` (what a class of version 1 says of the fields of version 1), then every other field
    that is not at its default: so no method and no field can be added that a protocol does not say.
    """
    said = [_kind(type(spec)), getattr(spec, "label", None)]
    known = {"kind", *_version_1(type(spec))}
    said += [_words(name, value) for name, value in stated_fields(spec) if name not in known]
    return "|".join(filter(None, said))


def _words(name: str, value: object) -> str:
    if _is_spec(type(value)):
        return label(value) or f"{name}={canonical_json(to_dict(value))}"
    if isinstance(value, float) and float(f"{value:g}") == value:
        value = f"{value:g}"  # 2.0 is 2
    return f"{name}={value}"


def _version_1(kind: type) -> Sequence[str]:
    return getattr(kind, "VERSION_1", ())


@functools.cache
def _kind(kind: type) -> str | None:
    """What a class is called in a union; a field of that name is something else."""
    return None if any(field.name == "kind" for field in _fields(kind)) else getattr(kind, "kind", None)


@functools.cache
def _defaults(kind: type) -> tuple[tuple[str, object], ...]:
    """The fields of a dataclass, each with the value at which it is left out: `MISSING`, which no value equals, for
    never.
    """

    def default(field: dataclasses.Field) -> object:
        if field.name in _version_1(kind):
            return dataclasses.MISSING
        return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()

    return tuple((field.name, default(field)) for field in _fields(kind))


_fields = functools.cache(dataclasses.fields)
_is_spec = functools.cache(dataclasses.is_dataclass)


def from_dict(kind: type, value: object, *, made: dict | None = None):
    """The inverse of `to_dict`: `from_dict(Cell, to_dict(cell)) == cell`.

    What stands in the value many times, such as the teacher of many students, is made once and shared (`made`, by its
    bytes).
    Raises: SpecError when a field is unknown or of the wrong kind.
    """
    made = {} if made is None else made
    specs, many = _specs_in(kind)
    if not specs or (value is None and isinstance(kind, types.UnionType)):
        return value  # its dataclass checks it
    if many:  # no two the same
        refuse_unless(isinstance(value, list | tuple), "a list of values", value, "must be a list")
        return tuple(_filled(_spec_of(specs, item), item, made) for item in value)
    spec = _spec_of(specs, value)
    key = (spec, marshal.dumps(value, 2))  # bytes, because 1 and 1.0 are equal but not the same
    if key not in made:
        made[key] = _filled(spec, value, made)
    return made[key]


@functools.cache
def _specs_in(kind: object) -> tuple[tuple[type, ...], bool]:
    """The dataclasses that values of a kind are made of, and whether they are tuples of them; none for plain values."""
    many = [_arguments(part)[0] for part in _members(kind) if _origin(part) is tuple]
    specs = tuple(part for part in _members(many[0] if many else kind) if _is_spec(part))
    if len({_kind(spec) for spec in specs}) < len(specs):
        raise TypeError(f"{kind}: each class of a union but the first needs a `kind` of its own")
    return specs, bool(many)


def _members(kind: object) -> tuple[object, ...]:
    return _arguments(kind) if isinstance(kind, types.UnionType) else (kind,)


def _spec_of(specs: tuple[type, ...], value: object) -> type:
    """The class of a union that a JSON value was made from."""
    named = value.get("kind") if isinstance(value, dict) else None
    known = {_kind(spec): spec for spec in specs}
    found = known.get(named) if isinstance(named, str | None) else None
    if found is None and len(specs) > 1:  # a class with a field of that name means something else by it
        rule = f"must be one of {', '.join(filter(None, known))}"
        refuse_unless("kind" in _expected(specs[0])[0], specs[0].__name__ + ".kind", named, rule)
    return found or specs[0]


def _filled(kind: type, value: object, made: dict) -> object:
    refuse_unless(isinstance(value, dict), kind.__name__, value, "must be an object of fields")
    names, needed, specs = _expected(kind)
    if _kind(kind) and value.get("kind") == _kind(kind):
        value = {name: item for name, item in value.items() if name != "kind"}
    unknown = value.keys() - names
    refuse_unless(not unknown, kind.__name__, sorted(unknown), "has no such field")
    absent = [name for name in needed if name not in value]
    refuse_unless(not absent, kind.__name__, absent, "lacks these fields")
    return kind(**value | {name: from_dict(hint, value[name], made=made) for name, hint in specs if name in value})


@functools.cache
def _expected(kind: type) -> tuple[frozenset[str], tuple[str, ...], tuple[tuple[str, object], ...]]:
    """Of a dataclass: the names of all fields, of those that must be given, and those that hold dataclasses."""
    needed = (f.name for f in _fields(kind) if f.default is f.default_factory is dataclasses.MISSING)
    specs = ((name, hint) for name, hint in _declared(kind) if _specs_in(hint)[0])
    return frozenset(name for name, _ in _declared(kind)), tuple(needed), tuple(specs)

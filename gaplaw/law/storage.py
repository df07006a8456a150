"""How does a law get into a file and out of it again? JSON of one schema version, written whole or not at all.

Beside `fitted_law` in the law half of the walk; `law` joins the two. Nothing here computes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from gaplaw.errors import LawError
from gaplaw.files import intact, renamed, with_sum
from gaplaw.law.answers import MethodOptimum, Noise, Parameter, StudentOptimum
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.flags import Flag
from gaplaw.objects import brought_here

SCHEMA_VERSION = 1


def law_to_dict(law: FittedLaw) -> dict:
    """Everything that a law holds, JSON-ready but for its arrays; `write_law` turns those into lists.

    Args:
        law: a fitted law.
    """
    data = {field.name: getattr(law, field.name) for field in fields(law)}
    data["parameters"] = {name: asdict(p) for name, p in law.parameters.items()}
    data["students"] = [asdict(s) for s in law.students]
    data["flags"] = [flag.to_dict() for flag in law.flags]
    data["noise"] = asdict(law.noise)
    data["surface"] = law.surface.to_dict()
    return {"schema_version": SCHEMA_VERSION, **data}


def law_fields(data: dict) -> dict:
    """The fields of a law from what `law_to_dict` gave.

    Args:
        data: that dict, as it comes from JSON.

    Returns:
        Field → value; the surface is left as its dict, since kinds differ.

    Raises:
        LawError: another schema version.
    """
    data = {name: value for name, value in data.items() if name != "sha256"}
    version = data.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise LawError(f"law: schema_version {version!r} must be {SCHEMA_VERSION}; fit the table again")
    data["parameters"] = {n: Parameter(**_tuples(p)) for n, p in data["parameters"].items()}
    data["students"] = tuple(_student_from(s) for s in data["students"])
    data["flags"] = tuple(Flag.from_dict(f) for f in data["flags"])
    data["measured"] = {name: tuple(span) for name, span in data["measured"].items()}
    data["noise"] = Noise(**data["noise"])
    data["rivals"] = tuple(data["rivals"])
    return data


def write_law(data: dict, path) -> None:
    """Write JSON to a temporary name and rename, so that a reader never sees half a law.

    Raises:
        LawError: the file cannot be written.
    """
    path = Path(path)
    try:
        with renamed(path) as temporary:
            text = json.dumps(with_sum(_plain(data)), indent=1, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise LawError(f"law file {path}: cannot be written ({error.strerror or error})") from error


def read_law(path) -> dict:
    """What `write_law` wrote, from a path or a URL.

    Raises:
        LawError: no such file, not JSON, not a law, or changed since it was written.
    """
    try:
        with brought_here(path) as (local, _):
            data = json.loads(local.read_text(encoding="utf-8"))
    except OSError as error:
        raise LawError(f"law file {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise LawError(f"law file {path}: not JSON ({error})") from error
    if not isinstance(data, dict) or "surface" not in data:
        raise LawError(f"law file {path}: not a law written by gaplaw fit")
    if not intact(data):
        raise LawError(f"law file {path}: changed since gaplaw fit wrote it (its checksum does not fit); fit again")
    return data


def _tuples(data: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def _student_from(data: dict) -> StudentOptimum:
    methods = tuple(MethodOptimum(**_tuples(m)) for m in data["methods"])
    return StudentOptimum(**{**data, "methods": methods})


def _plain(value):
    """JSON has no NaN, no infinities and no numpy: arrays become lists of 7 significant digits, non-finite becomes
    null.
    """
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value] if value.ndim > 1 else [_plain(float(f"{x:.7g}")) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value

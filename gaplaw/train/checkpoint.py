"""How does a trained model survive the process? Orbax, behind two functions; the shape travels with the parameters."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from gaplaw import models
from gaplaw.canonical import from_dict, to_dict
from gaplaw.errors import CheckpointError
from gaplaw.spec import ModelSpec


def save(path: Path | str, params: dict, model: ModelSpec) -> None:
    """Write parameters and shape to `path`, whole or not at all: a temporary folder is renamed at the end."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        ocp.save(temporary / "params", params)
        (temporary / "model.json").write_text(json.dumps(to_dict(model)))
        if path.exists():  # an earlier, unreadable attempt
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(path: Path | str) -> tuple[dict, ModelSpec]:
    """Read (params, ModelSpec). Raises: CheckpointError when there is none, or it is damaged."""
    path = Path(path).absolute()
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint there")
    try:
        model = from_dict(ModelSpec, json.loads((path / "model.json").read_text()))
        shapes = jax.eval_shape(lambda key: models.init(key, model), jax.random.key(0))
        return ocp.load(path / "params", shapes), model
    except Exception as fault:  # Orbax, tensorstore and json raise unrelated kinds for damaged files
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(fault).__name__}); delete the folder to train it again"
        ) from None

"""Which columns does a table of results have, and what do they mean? Units stand in the names; nothing else is written.

Before results in the walk, which writes and reads the tables.
"""

from __future__ import annotations

import re
from hashlib import sha256

SCHEMA_VERSION = 2  # 2: `objective`, `cpu_path` and `measure_…` columns; training_loss_nats over the last tenth
TABLES = ("cells", "curves")

_TEXT, _WHOLE, _REAL, _FLAG = "string", "int64", "double", "bool"

# Column → (Arrow type, meaning). The first notebook prints these meanings; nothing else may be written.
CELLS = {
    "schema_version": (_WHOLE, "meaning of the columns; changes are listed in CHANGELOG.md"),
    "sweep": (_TEXT, "name of the sweep that ran the cell"),
    "cell_id": (_TEXT, "readable name plus 6 digits of the fingerprint; also the file name"),
    "fingerprint": (_TEXT, "12-digit hash of everything that changes the numbers"),
    "role": (_TEXT, "teacher, assistant (a distilled teacher), student (distilled) or baseline (a student alone)"),
    "status": (_TEXT, "done or failed"),
    "error": (_TEXT, "why a cell failed"),
    "protocol": (_TEXT, "initialisation, share of soft targets, temperature: rows of different protocols share no fit"),
    "pair": (_TEXT, "pairing key: same initialisation and same batches, different teacher"),
    "seed": (_WHOLE, "seed of the initialisation"),
    "student_params": (_WHOLE, "S: non-embedding parameters of the model that the row trained"),
    "student_params_target": (_WHOLE, "S that pruning was asked for; null for students from scratch"),
    "student_params_embedding": (_WHOLE, "parameters in token and position embeddings and in an untied output head"),
    "student_params_active": (
        _WHOLE,
        "all parameters that one token meets (fewer than the total only in a mixture of experts)",
    ),
    "student_params_unique": (_WHOLE, "stored numbers, each once (fewer than the total only where layers are re-used)"),
    "student_params_total": (_WHOLE, "all parameters"),
    "student_tokens": (_WHOLE, "D_S: tokens that the row trained on"),
    "teacher_params": (_WHOLE, "T: non-embedding parameters of the teacher; null without one"),
    "teacher_params_total": (_WHOLE, "all parameters of the teacher"),
    "teacher_tokens": (_WHOLE, "D_T: tokens that the teacher was trained on"),
    "teacher_id": (_TEXT, "cell_id of the teacher"),
    "teacher_fingerprint": (_TEXT, "fingerprint of the teacher"),
    "student_training_flops": (_REAL, "6·S·D_S, S = active parameters"),
    "teacher_signal": (
        _TEXT,
        "live, or what a cache kept of the teacher: topk:SYMBOLS, sampled:SYMBOLS; null without a teacher",
    ),
    "teacher_cache_bytes_per_token": (_REAL, "bytes that the cache keeps for one token; null for a live teacher"),
    "teacher_cache_kept_mass": (
        _REAL,
        "teacher's mass on the symbols kept, at the row's temperature, on held-out tokens",
    ),
    "teacher_cache_kl_error_nats": (
        _REAL,
        "KL from the cache minus KL from all logits, for a reference student (the teacher with halved logits)",
    ),
    "teacher_cache_gradient_agreement": (_REAL, "cosine of that student's two gradients (output matrix)"),
    "teacher_forward_flops": (
        _REAL,
        "2·T·D_S, T = active parameters; with a cache spent once for all rows that share it",
    ),
    "teacher_training_flops": (_REAL, "6·T·D_T, T = active parameters; not what an assistant's own teacher took"),
    "loss_student_ce_nats": (_REAL, "cross-entropy against the data, mean over validation tokens"),
    "loss_teacher_ce_nats": (_REAL, "the same for the teacher, on the same tokens"),
    "kl_teacher_student_nats": (_REAL, "KL(teacher || student), temperature 1, mean over validation tokens"),
    "agreement": (_REAL, "share of validation tokens where teacher and student rank the same token first"),
    "calibration_error": (_REAL, "expected calibration error of the student's first choice, 21 equal bins"),
    "teacher_calibration_error": (_REAL, "the same for the teacher"),
    "validation_tokens": (_WHOLE, "tokens evaluated on; the same tokens for every cell of a corpus"),
    "training_epochs": (_REAL, "how often training saw each window of its text, on average: 4 is every one four times"),
    "training_loss_nats": (
        _REAL,
        "mean objective over the last tenth of the steps (rounded up), each before its update",
    ),
    "domain_labels": (_TEXT, "JSON: column → label of each domain whose label is not the middle of its column's name"),
    "model": (_TEXT, "ModelSpec as JSON: the shape that was trained (for pruned students, the shape found)"),
    "data_source": (_TEXT, "DataSpec.source"),
    "data_tokenizer": (_TEXT, "DataSpec.tokenizer"),
    "data_manifest": (_TEXT, "content hash of the corpus"),
    "sequence_tokens": (_WHOLE, "tokens per sequence"),
    "init": (_TEXT, "scratch or prune"),
    "objective": (_TEXT, "kind of the objective; its numbers are in `protocol` and `spec`"),
    "soft_weight": (_REAL, "share of the KL term in the objective kd; null for others"),
    "temperature": (_REAL, "temperature of the KL term of the objective kd; null for others"),
    "temperature_squared": (_FLAG, "whether the KL term is multiplied by T²"),
    "learning_rate": (_REAL, "peak learning rate"),
    "batch_sequences": (_WHOLE, "sequences per step"),
    "batch_seed": (_WHOLE, "seed of the batch order"),
    "steps": (_WHOLE, "optimizer steps"),
    "spec": (_TEXT, "the whole Cell as JSON, its teacher included"),
    "cpu_path": (_FLAG, "whether the group ran the fast way for one CPU core"),
    "group_id": (_TEXT, "the compiled program that the cell ran in"),
    "group_cells": (_WHOLE, "cells in that program"),
    "group_wall_seconds": (_REAL, "wall time of that program, compilation and evaluation included"),
    "compile_seconds": (_REAL, "time until the first dispatch returned"),
    "wall_seconds": (_REAL, "group_wall_seconds divided by group_cells"),
    "device": (_TEXT, "kind of device"),
    "device_count": (_WHOLE, "devices used"),
    "process_count": (_WHOLE, "processes used"),
    "execution": (_TEXT, "Execution as JSON: recorded, not identity"),
    "versions": (_TEXT, "python, gaplaw, jax, flax, optax and orbax versions as JSON"),
    "git_commit": (_TEXT, "commit of the working copy, null outside one"),
    "git_dirty": (_FLAG, "whether tracked files differed from that commit"),
    "finished_at": (_TEXT, "UTC time, ISO 8601"),
}
DOMAIN_COLUMN = re.compile(r"domain_[a-z0-9_]+_loss_nats")
MEASURE_COLUMN = re.compile(r"measure_[a-z0-9_]+")  # what an objective measures: mean over the last tenth of the steps
DOMAIN_READABLE_CHARACTERS = 40
CURVES = {
    "schema_version": (_WHOLE, "as in cells"),
    "cell_id": (_TEXT, "as in cells"),
    "tokens": (_WHOLE, "tokens trained on so far"),
    "training_loss_nats": (
        _REAL,
        "mean objective over the steps since the previous row (in the first: since the start); weighted by the tokens "
        "between, rows add up to any longer stretch",
    ),
    "validation_loss_nats": (_REAL, "cross-entropy on the validation tokens; null between evaluations"),
}
COLUMNS = {"cells": CELLS, "curves": CURVES}


def domain_column(domain: str) -> str:
    """The cells column of one domain's validation loss: `domain_code_loss_nats`.

    Two labels never share one. A label of lower-case letters, digits and single underscores is the column's middle
    itself; any other is shortened to that and told apart by eight digits of its hash: "C++" is
    `domain_c__f1deb75f_loss_nats`.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", domain.lower())
    if plain != domain or not domain:
        readable = plain.strip("_")[:DOMAIN_READABLE_CHARACTERS].rstrip("_") or "label"
        plain = f"{readable}__{sha256(domain.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"domain_{plain}_loss_nats"


def type_of(name: str) -> str | None:
    """The Arrow type of a column of either table; None when the schema does not know it."""
    if name in CELLS or name in CURVES:
        return (CELLS.get(name) or CURVES[name])[0]
    return _REAL if is_free(name) else None


def is_free(name: str) -> bool:
    """Whether a cells column is one whose name follows the data or the objective."""
    return bool(DOMAIN_COLUMN.fullmatch(name) or MEASURE_COLUMN.fullmatch(name))

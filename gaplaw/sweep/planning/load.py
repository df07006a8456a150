"""How does an experiment file become a sweep that can be run? Executed, checked, and its data given their content hash.

First stop of the sweep part of the walk. An experiment is a Python file that builds a `Sweep`: a module attribute
`sweep`, or a function `sweep()`; it may also carry `execution`, an `Execution` in place of the default one, and import
the files of its own folder. Whatever is wrong with it is told in one line that names the file, and the line of the file
if it raised.
"""

from __future__ import annotations

import importlib.util
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gaplaw.errors import DataError, SweepError
from gaplaw.packages import shipped_experiments
from gaplaw.spec import Cell, DataSpec, Execution, Sweep


def find_experiment(name: str) -> Path:
    """The file that a person means: a path, or the bare name of a file in `experiments/` here, or of a shipped one.

    Raises: SweepError when there is no such file, listing those that exist.
    """
    given = Path(name)
    if given.suffix == ".py" or len(given.parts) > 1:
        if given.is_file():
            return given
        raise SweepError(f"experiment {name!r}: no such file")
    folders = (Path("experiments"), shipped_experiments())
    for folder in folders:
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    known = sorted({p.stem for folder in folders for p in folder.glob("[a-z]*.py")})
    raise SweepError(f"experiment {name!r}: no such file; known here: {', '.join(known) or 'none'}")


def home_of(name: str) -> Path:
    """The folder of an experiment file: what the relative paths of its data and tokenizers are relative to."""
    return find_experiment(name).absolute().parent


def load_experiment(name: str) -> Sweep:
    """The sweep of `load`."""
    return load(name)[0]


def load(name: str) -> tuple[Sweep, Execution]:
    """Execute an experiment file: its sweep as written (see `resolve` for the data's hash), and how it wants to be run.

    Args: name: a path such as experiments/quickstart.py, or the bare name quickstart.
    Raises: SweepError in one line: file missing, no Sweep in it, or the line that raised and what.
    """
    path = find_experiment(name)
    found, execution = _executed(path)
    if not isinstance(found, Sweep):
        was = "nothing of that name" if found is None else f"a {type(found).__name__}"
        raise SweepError(
            f"{path}: needs a module attribute `sweep` (or a function `sweep()`) that is a Sweep; found {was}"
        )
    if not found.cells:
        raise SweepError(f"{path}: its sweep {found.name!r} has no cells")
    return found, execution


def _executed(path: Path) -> tuple[object, Execution]:
    """Run the file. Returns: its `sweep` and its `execution`. Raises: SweepError saying what the file raised."""
    spec = importlib.util.spec_from_file_location(f"gaplaw_experiment_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up while the file runs
    try:
        with _files_beside(path):
            spec.loader.exec_module(module)
            found = getattr(module, "sweep", None)
            found = found() if callable(found) else found
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # SystemExit as well: nothing that a file does may pass for our own exit
        raise SweepError(_where(path, fault)) from fault
    finally:
        sys.modules.pop(spec.name, None)
    execution = getattr(module, "execution", Execution())
    if not isinstance(execution, Execution):
        kind = type(execution).__name__
        raise SweepError(f"{path}: its attribute `execution` must be an Execution; found a {kind}")
    return found, execution


@contextmanager
def _files_beside(path: Path) -> Iterator[None]:
    """Inside, a file may import those of its own folder, as under `python FILE`; none of them stays loaded
    afterwards.
    """
    folder, before = path.absolute().parent, set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == folder:
                del sys.modules[name]


def _where(path: Path, fault: BaseException) -> str:
    """One line: file, line number, its text, the kind of exception and the first line of its message."""
    message = " ".join(str(fault).split()) or "no message"
    if isinstance(fault, SyntaxError) and fault.lineno:
        return f"{path}, line {fault.lineno}: {(fault.text or '').strip()}: {type(fault).__name__}: {fault.msg}"
    lines = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if Path(f.filename) == path and f.lineno]
    if not lines:
        return f"{path}: {type(fault).__name__}: {message}"
    text = linecache.getline(str(path), lines[-1]).strip()
    return f"{path}, line {lines[-1]}: {text}: {type(fault).__name__}: {message}"


def resolve(sweep: Sweep, *, absent: list[str] | None = None, home: Path | None = None) -> Sweep:
    """The same sweep with every corpus's content hash filled in, so that fingerprints speak of content, not of paths.

    Args: home: what relative paths of data and tokenizers are relative to; the working directory if None.
      absent: a list to be filled with what data by name (tfds:…) is not on this machine, and why; nothing is
      downloaded, and such cells keep an empty manifest, so that a plan can be made without them. None downloads, or
      refuses.
    Raises: DataError for a corpus that is not there; SweepError when a model's vocabulary is too small for its
    tokenizer.
    """
    from gaplaw import data

    smallest: dict[DataSpec, int] = {}  # vocabularies, by resolved data

    def resolved(spec: DataSpec) -> DataSpec:
        try:
            found = data.resolve(with_whole_paths(spec, home), fetch=absent is None)
            smallest[found] = data.vocab_size(found)
        except DataError as fault:
            if absent is None or not spec.source.startswith("tfds:"):
                raise
            absent.append(str(fault))
            found, smallest[spec] = spec, 0
        return found

    made = with_data(sweep, resolved)
    for cell in made.cells:
        if cell.model.vocab_size < smallest[cell.data]:
            raise SweepError(
                f"{cell.name}: ModelSpec.vocab_size = {cell.model.vocab_size}: must be at least "
                f"{smallest[cell.data]}, the "
                f"vocabulary of tokenizer {cell.data.tokenizer!r}"
            )
    return made


def with_data(sweep: Sweep, change: Callable[[DataSpec], DataSpec]) -> Sweep:
    """The same sweep with the data of every cell and teacher changed; `change` is asked once for each data."""
    changed: dict[DataSpec, DataSpec] = {}
    teachers: dict[str, Cell] = {}

    def changed_cell(cell: Cell) -> Cell:
        if cell.data not in changed:
            changed[cell.data] = change(cell.data)
        teacher = cell.teacher
        if teacher is not None:
            if teacher.fingerprint not in teachers:
                teachers[teacher.fingerprint] = changed_cell(teacher)
            teacher = teachers[teacher.fingerprint]
        return replace(cell, data=changed[cell.data], teacher=teacher)

    return replace(
        sweep,
        teachers=tuple(changed_cell(cell) for cell in sweep.teachers),
        baselines=tuple(changed_cell(cell) for cell in sweep.baselines),
        students=tuple(changed_cell(cell) for cell in sweep.students),
    )


def with_whole_paths(spec: DataSpec, home: Path | None) -> DataSpec:
    """The spec with absolute paths, because workers may run in another folder than the one it was written for."""

    def whole(value: str) -> str:
        kind, _, path = value.partition(":")
        if kind not in ("folder", "file"):
            return value
        return f"{kind}:{Path(home or Path.cwd(), Path(path).expanduser())}"

    return replace(spec, source=whole(spec.source), tokenizer=whole(spec.tokenizer))

"""What do the committed notebooks print, and do two runs of one agree? Shared by the tests and by `make notebooks`.

`python -m tests.notebook_run` runs every notebook on the committed example and stores the outputs in it, without what
differs from one machine or moment to the next: times, versions and paths.
"""

from __future__ import annotations

import base64
import os
import re
import struct
from html import unescape
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXAMPLE = "../experiments/results/quickstart"  # as a notebook sees it
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, run: Path | str = EXAMPLE):
    """A notebook run from top to bottom on a run folder, with its outputs."""
    import nbclient

    notebook = nbformat.read(path, as_version=4)
    environment = {"GAPLAW_RUN": str(run), "PYTHONPATH": str(ROOT)}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        nbclient.NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", ()):
            output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
    return notebook


def differences(stored, fresh, *, relative: float, absolute: float) -> list[str]:
    """Where the outputs of two runs of one notebook differ: words exactly, numbers within tolerance, images in their
    size.
    """
    found = []
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        if old.cell_type != "code":
            continue
        kinds = [[(o.output_type, sorted(o.get("data", {}))) for o in cell.outputs] for cell in (old, new)]
        if kinds[0] != kinds[1]:
            found.append(f"cell {old.id}: outputs {kinds[0]} are now {kinds[1]}")
            continue
        for one, other in zip(old.outputs, new.outputs, strict=True):
            pairs = [(kind, one.data[kind], other.data[kind]) for kind in one.get("data", {})]
            pairs += [("text", one.text, other.text)] if one.output_type == "stream" else []
            for kind, before, now in pairs:
                if kind == "image/png":
                    same = sizes_agree(png_size(before), png_size(now))
                else:
                    same = texts_agree(before, now, relative=relative, absolute=absolute)
                if not same:
                    found.append(f"cell {old.id}, {kind}: {before[:300]!r} is now {now[:300]!r}")
    return found


_NUMBER = re.compile(r"[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def texts_agree(before: str, now: str, *, relative: float, absolute: float) -> bool:
    """The same words, and each number within `relative` of its size or `absolute` of it. Layout does not count."""
    words = [re.sub(r"[\s─-]+", " ", _NUMBER.sub("#", _plain(text))).strip() for text in (before, now)]
    if words[0] != words[1]:
        return False
    numbers = [[float(n.replace("−", "-")) for n in _NUMBER.findall(_plain(text))] for text in (before, now)]
    return all(abs(a - b) <= max(relative * abs(a), absolute) for a, b in zip(*numbers, strict=True))


def _plain(text: str) -> str:
    """The words of a text, or of an HTML fragment without its styles; sizes of figures are compared as images are."""
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = unescape(re.sub(r"<(?=/?[a-z])[^>]*>", " ", text)) if text.lstrip().startswith("<div") else text
    return re.sub(r"<Figure size [^>]*>", "<Figure>", text)


def png_size(encoded: str) -> tuple[int, int]:
    """Width and height, pixels."""
    return struct.unpack(">II", base64.b64decode(encoded)[16:24])


def sizes_agree(before: tuple[int, int], now: tuple[int, int]) -> bool:
    """Within 5 %: fonts and layout engines differ a little; what is drawn is tested in tests/report."""
    return all(abs(a - b) <= 0.05 * a for a, b in zip(before, now, strict=True))


def refresh() -> None:
    for path in NOTEBOOKS:
        nbformat.write(execute(path), path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    refresh()

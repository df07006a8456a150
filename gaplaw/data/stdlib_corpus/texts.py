"""Which text does every Python machine already have? The standard library, read as labelled documents.

Five domains: `code` (source without its docstrings), `docs` (the docstrings, one document per file), `reference` (the
language reference behind `help()`, and plain-text notes), `tests` (test suites, whole) and `tables` (character
encodings and entity tables). Some distributions ship without the test folders; the corpus is then what is there. Read
at run time from the Python that runs, never redistributed, so its identity is the hash of the files, not the version
number.

Measured on CPython 3.11.7, in bytes and documents: code 7.75 M in 599, docs 1.79 M in 546, reference 0.61 M in 90,
tables 1.50 M in 124, tests 19.4 M in 1,011; 31.1 M in all, or 9.35 M symbols of "bpe:4096".
`gaplaw.data.describe(DataSpec())` says what is here.
"""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import sysconfig
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from gaplaw.data.documents import Document, files_manifest
from gaplaw.errors import DataError

RECIPE = "stdlib-1"  # raise when the same files would yield other documents
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
SKIPPED_FILES = {"sitecustomize.py", "usercustomize.py"}  # a distribution's own, and not the library's
TEST_FOLDERS = {"test", "tests", "idle_test"}
TOPICS = "pydoc_data/topics.py"
TABLES = ("encodings/", "html/entities.py", "stringprep.py")
SHARED_PARAGRAPH_CHARACTERS = 60


def library_folder() -> Path:
    """The folder of the running Python's standard library (of the base installation, inside a virtual environment)."""
    return Path(sysconfig.get_path("stdlib"))


def library_files(root: Path) -> list[tuple[str, bytes]]:
    """(relative path, content) of every .py file, and every .txt file outside tests, in path order; copies only once.

    Raises: DataError when there is no Python source to read, as in a zipped or embedded distribution.
    """
    found: dict[str, bytes] = {}
    for folder, subfolders, names in os.walk(root):
        # config-* and _sysconfigdata* describe the build, and differ between machines with the same Python
        subfolders[:] = [s for s in subfolders if s not in SKIPPED_FOLDERS and not s.startswith("config-")]
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            plain_text = name.endswith(".txt") and not is_test(relative)
            if not (name.endswith(".py") or plain_text) or name in SKIPPED_FILES or name.startswith("_sysconfigdata"):
                continue
            try:
                found[relative] = path.read_bytes()
            except OSError:  # a dangling link or an unreadable file of the distribution: the corpus is what can be read
                continue
    if not any(name.endswith(".py") for name in found):
        raise DataError(f"DataSpec.source = 'stdlib': no Python source files under {root}; use 'folder:PATH' instead")
    seen: set[bytes] = set()
    files = []
    for relative in sorted(found):
        digest = sha256(found[relative]).digest()
        if digest not in seen:
            seen.add(digest)
            files.append((relative, found[relative]))
    return files


def library_manifest(root: Path) -> str:
    return files_manifest(RECIPE, [(name, sha256(content).hexdigest()) for name, content in library_files(root)])


def library_documents(root: Path) -> Iterator[Document]:
    """Every document of the standard library; the group of a document is the file that it comes from."""
    for relative, content in library_files(root):
        if relative == TOPICS:
            yield from topic_documents(content)
            continue
        text = decode(content)
        if text is None:
            continue
        if relative.endswith(".txt"):
            yield Document(content=text.encode(), domain="reference", group=relative)
        elif is_test(relative):
            yield Document(content=text.encode(), domain="tests", group=relative)
        elif relative.startswith(TABLES):
            yield Document(content=text.encode(), domain="tables", group=relative)
        else:
            code, docs = separate_docstrings(text)
            yield Document(content=code.encode(), domain="code", group=relative)
            yield Document(content=docs.encode(), domain="docs", group=relative)


def is_test(relative: str) -> bool:
    return not TEST_FOLDERS.isdisjoint(relative.split("/")[:-1])


def decode(content: bytes) -> str | None:
    """Source bytes as text by their declared encoding, newlines as \\n; None for the deliberately broken test
    fixtures.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        return content.decode(encoding).replace("\r\n", "\n")
    except (SyntaxError, UnicodeDecodeError):
        return None


def separate_docstrings(source: str) -> tuple[str, str]:
    """(the source without the lines of its docstrings, the docstrings in order, blank lines between).

    A docstring that shares its line with code stays in the code; a file that does not parse is all code.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source, ""
    lines = source.split("\n")
    removed: set[int] = set()
    docstrings: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
            continue
        first = node.body[0]
        if not (
            isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
        ):
            continue
        above = lines[first.lineno - 1].encode()[: first.col_offset].decode()
        below = lines[first.end_lineno - 1].encode()[first.end_col_offset :].decode()
        if above.strip() or below.strip():
            continue
        removed.update(range(first.lineno - 1, first.end_lineno))
        docstrings.append((first.lineno, inspect.cleandoc(first.value.value)))
    code = "\n".join(line for number, line in enumerate(lines) if number not in removed)
    return code, "\n\n".join(text for _, text in sorted(docstrings) if text)


def topic_documents(content: bytes) -> Iterator[Document]:
    """The topics of `help()`, one document each; topics that quote the same paragraph form one group.

    Of the 79 topics on 3.11 several are chapters that contain others ('specialnames' holds 'customization'), so a split
    by topic alone would put the same sentences into training and validation.
    """
    values = [n.value for n in ast.parse(content).body if isinstance(n, ast.Assign | ast.AnnAssign)]
    topics: dict[str, str] = next((ast.literal_eval(v) for v in values if isinstance(v, ast.Dict)), {})
    quoted_in: dict[str, list[str]] = defaultdict(list)
    for name in sorted(topics):
        for paragraph in {" ".join(p.split()) for p in re.split(r"\n\s*\n", topics[name])}:
            if len(paragraph) >= SHARED_PARAGRAPH_CHARACTERS:
                quoted_in[paragraph].append(name)
    leader = {name: name for name in topics}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for names in quoted_in.values():
        for name in names[1:]:
            one, other = sorted((find(names[0]), find(name)))
            leader[other] = one
    for name in sorted(topics):
        yield Document(content=topics[name].encode(), domain="reference", group=f"{TOPICS}#{find(name)}")

"""The embedded default: what is code and what is docstring, nothing shared between groups, TensorFlow never
imported.
"""

import ast
import json
import re
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest

from gaplaw.data.stdlib_corpus import texts
from gaplaw.errors import DataError

ROOT = Path(__file__).resolve().parents[2]

SOURCE = textwrap.dedent('''\
    # a comment stays
    """Module doc."""
    import os

    class A:  # ünïcode before a docstring
        """Class doc.

            indented more
        """
        x = "a string, not a docstring"

        def f(self): "shares its line"

        async def g(self):
            r"""g's doc"""
            return """a value"""
    ''')


def test_docstrings_leave_the_code_and_arrive_cleaned():
    code, docs = texts.separate_docstrings(SOURCE)
    assert docs == "Module doc.\n\nClass doc.\n\nindented more\n\ng's doc"
    for kept in ("# a comment stays", "a string, not a docstring", "shares its line", 'return """a value"""'):
        assert kept in code
    for gone in ("Module doc", "Class doc", "indented more", "g's doc"):
        assert gone not in code
    assert texts.separate_docstrings("def broken(:\n") == ("def broken(:\n", "")


class Undocumented(ast.NodeTransformer):
    """The syntax tree without docstrings: an independent way to say what `separate_docstrings` must leave."""

    def generic_visit(self, node):
        super().generic_visit(node)
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return node


@pytest.mark.parametrize(
    "name", ["json/decoder.py", "dataclasses.py", "random.py", "heapq.py", "textwrap.py", "bisect.py"]
)
def test_the_code_of_library_files_is_the_same_program(name):
    source = (texts.library_folder() / name).read_text(encoding="utf-8")
    code, _ = texts.separate_docstrings(source)
    assert ast.dump(ast.parse(code)) == ast.dump(Undocumented().visit(ast.parse(source)))


@pytest.fixture(scope="module")
def documents():
    return list(texts.library_documents(texts.library_folder()))


def test_the_library_has_its_domains_and_no_empty_groups(documents):
    characters = defaultdict(int)
    for document in documents:
        characters[document.domain] += len(document.text)
    assert (
        {"code", "docs", "reference", "tables"} <= set(characters) <= {"code", "docs", "reference", "tables", "tests"}
    )
    assert min(characters.values()) > 100_000
    assert all(d.group.startswith(("encodings/", "html/", "stringprep")) for d in documents if d.domain == "tables")


def test_a_file_is_one_group_with_its_docstrings(documents):
    domains = defaultdict(set)
    for document in documents:
        domains[document.group].add(document.domain)
    assert domains["json/decoder.py"] == {"code", "docs"}
    assert set(map(frozenset, domains.values())) <= {
        frozenset({d}) if isinstance(d, str) else frozenset(d)
        for d in ("reference", "tests", "tables", ("code", "docs"))
    }


def test_help_topics_of_different_groups_share_no_paragraph(documents):
    groups = defaultdict(set)
    for document in documents:
        if document.group.startswith(texts.TOPICS):
            for paragraph in re.split(r"\n\s*\n", document.text):
                if len(" ".join(paragraph.split())) >= texts.SHARED_PARAGRAPH_CHARACTERS:
                    groups[" ".join(paragraph.split())].add(document.group)
    assert len(groups) > 500 and max(map(len, groups.values())) == 1


def test_the_manifest_sees_every_byte_of_the_library_and_nothing_of_the_installation(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "package" / "b.py").write_text("y = 2\n")
    before = texts.library_manifest(tmp_path)
    for outside in ("site-packages/c.py", "config-3.11-x/d.py", "_sysconfigdata_x.py", "sitecustomize.py", "e.so"):
        (tmp_path / outside).parent.mkdir(exist_ok=True)
        (tmp_path / outside).write_text("z = 3\n")
    assert texts.library_manifest(tmp_path) == before
    (tmp_path / "package" / "b.py").write_text("y = 4\n")
    assert texts.library_manifest(tmp_path) != before


def test_a_file_that_repeats_another_or_cannot_be_decoded_is_left_out(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("x = 1\n")
    (tmp_path / "c.py").write_bytes(b"# \xff not what it declares\n")
    (tmp_path / "d.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"))
    code = {d.group: d.text for d in texts.library_documents(tmp_path) if d.domain == "code"}
    assert set(code) == {"a.py", "d.py"} and "é" in code["d.py"]


def test_a_python_without_its_sources_is_refused(tmp_path):
    with pytest.raises(DataError, match="no Python source files"):
        texts.library_manifest(tmp_path)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_a_tfds_dataset_prepared_and_read_without_tensorflow_and_then_cached():
    code = textwrap.dedent("""
        import json, sys, time
        start = time.process_time()
        from gaplaw import data
        from gaplaw.spec import DataSpec
        corpus = data.load(DataSpec())
        report = data.describe(DataSpec())
        report["first"] = corpus.batch("train", 4, 0, range(2)).tolist()
        report["seconds"] = time.process_time() - start
        report["modules"] = [m for m in ("tensorflow", "jax", "tensorflow_datasets", "tokenizers") if m in sys.modules]
        print(json.dumps(report))
    """)
    first, second = run(code), run(code)
    assert "tensorflow" not in first["modules"] and "jax" not in first["modules"]
    assert second["modules"] == []  # what is cached needs none of them
    assert second["seconds"] < 1.5  # of CPU; 0.25 s where it was measured
    assert first["first"] == second["first"]
    whole = {domain for domain in first["splits"]["train"]["domains"]}
    assert len(whole) >= 4 and whole == set(first["splits"]["validation"]["domains"])
    sizes = {split: held["tokens"] for split, held in first["splits"].items()}
    assert sizes["validation"] / sum(sizes.values()) == pytest.approx(0.05, abs=0.002)


def test_the_builder_writes_array_record_files(tmp_path):
    import tensorflow_datasets as tfds

    from gaplaw import data
    from gaplaw.spec import DataSpec

    data.load(DataSpec())
    folder = data.cache_folder() / "tfds"
    prepared = next(folder.glob("*/stdlib_corpus/1.0.0"))
    assert list(prepared.glob("*.array_record-*"))
    source = tfds.builder_from_directory(prepared).as_data_source("train")
    assert {row["domain"].decode() for row in source} >= {"code", "docs", "reference", "tables"}
    assert "tensorflow" not in sys.modules

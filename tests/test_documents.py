"""Do the files around the code say what the code is? Reference, image, workflow, citation and pins against the
package.
"""

import ast
import configparser
import re
from importlib import import_module

import pytest
import yaml

import gaplaw
from tests import draw_walk
from tests.conftest import ROOT

REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
DOCUMENTED = [name for page in REFERENCE for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]


def text(name):
    return (ROOT / name).read_text()


def setup():
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def versions_of_python():
    return re.findall(r"Python :: (3\.\d+)", setup()["metadata"]["classifiers"])


def pins(name):
    return {line.split(";")[0].strip() for line in text(name).splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_reference_names_what_exists(name):
    module, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        assert hasattr(import_module(module), attribute)


def test_the_reference_has_every_public_verb():
    assert {f"gaplaw.{verb}" for verb in gaplaw.__all__} - {"gaplaw.__version__"} <= {*DOCUMENTED}


@pytest.mark.parametrize("package", ["gaplaw", "gaplaw.law"])
def test_type_checkers_see_the_names_that_are_loaded_late(package):
    module = import_module(package)
    (block,) = [node for node in ast.parse(text(module.__file__)).body if isinstance(node, ast.If)]
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert seen.keys() == {*module.__all__} - {"__version__"}
    for name, (home, original) in seen.items():
        assert getattr(import_module(home), original) is getattr(module, name)


def test_every_page_of_the_documentation_is_in_its_navigation():
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    navigation = yaml.safe_load(text("mkdocs.yml"))["nav"]
    assert set(re.findall(r"[\w/]+\.md", str(navigation))) == pages


def test_the_workflow_runs_the_commands_of_the_makefile_on_every_supported_python():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == versions_of_python()
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {command.split()[1] for command in commands} == {"check", "test", "docs"}
    for target in ("check", "test", "docs"):
        assert re.search(rf"^{target}:", text("Makefile"), re.M)
    assert "\nmake check\nmake test\n" in text(".ci/run") and "mkdocs build --strict\n" in text("Makefile")


def test_the_image_has_what_a_manifest_asks_for():
    dockerfile = text("Dockerfile")
    (version,) = re.findall(r"^FROM python:(3\.\d+)-slim$", dockerfile, re.M)
    extras = {extra for found in re.findall(r'"\.\[([\w,]+)\]"', dockerfile) for extra in found.split(",")}
    assert version in versions_of_python() and extras == {"train", "cloud"} <= set(setup()["options.extras_require"])
    copied = [name for line in dockerfile.splitlines() if line.startswith("COPY") for name in line.split()[1:-1]]
    sent = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied) and {*copied} == sent
    assert "ENTRYPOINT" not in dockerfile  # the manifest's command is the whole command


def test_the_citation_is_of_this_version_and_the_licence_is_the_one_that_is_named():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == gaplaw.__version__ and citation["license"] == setup()["metadata"]["license"]
    assert "Apache License\n                           Version 2.0" in text("LICENSE")


def test_what_every_test_run_installs_has_no_tool_of_the_documentation():
    documentation = {re.split("[>=]", line)[0] for line in setup()["options.extras_require"]["docs"].split()}
    pinned = {pin.split("==")[0] for pin in pins("requirements-docs.txt")}
    assert documentation <= pinned and all("==" in pin for pin in pins("requirements-docs.txt"))
    assert documentation & {pin.split("==")[0] for pin in pins("requirements.txt")} == {"ruff"}  # formats signatures


def test_the_picture_of_the_walk_shows_the_imports_of_today():
    assert draw_walk.PICTURE.read_text(encoding="utf-8") == draw_walk.drawing(), "run: python -m tests.draw_walk"
    assert "(docs/walk.svg)" in text("ARCHITECTURE.md")

"""Where do documents come from? The standard library or any TensorFlow Datasets dataset here, folders in `folder`.

Both TFDS paths write array_record and read it back by random access; TensorFlow is never imported. Imported on first
use only, so that a corpus whose tokens are cached starts without TFDS.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

from gaplaw.canonical import short_hash
from gaplaw.data.documents import Document, Source, text_group
from gaplaw.data.folder import FolderSource
from gaplaw.data.stdlib_corpus.texts import library_folder, library_manifest
from gaplaw.errors import DataError
from gaplaw.packages import install_with

RECIPE = "tfds-1"  # raise when the same dataset would yield other documents
DOMAIN_FEATURES = ("domain", "label")
READ_AHEAD = 256


def open_source(source: str, cache: Path, *, fetch: bool = True) -> Source:
    """The source that `DataSpec.source` names; `cache` is where an embedded corpus keeps its array_record files.

    fetch: whether a TFDS dataset that is not here may be downloaded and prepared.
    """
    kind, _, name = source.partition(":")
    if kind == "stdlib":
        return StdlibSource(cache)
    return TfdsSource(name, fetch) if kind == "tfds" else FolderSource(name)


class StdlibSource:
    """The running Python's standard library, prepared once per content as a TFDS dataset."""

    def __init__(self, cache: Path):
        self.cache = cache

    def manifest(self) -> str:
        return _library_manifest_once(library_folder())

    def documents(self) -> Iterator[Document]:
        from filelock import FileLock

        tfds = _import_tfds()
        from gaplaw.data.stdlib_corpus.builder import StdlibCorpus

        tfds.disable_progress_bar()
        folder = self.cache / "tfds" / self.manifest()
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "prepare.lock"), contextlib.redirect_stdout(io.StringIO()):
            builder = StdlibCorpus(data_dir=folder, file_format="array_record")
            builder.download_and_prepare()
        return _read(builder, "train", "text", "domain", where="DataSpec.source = 'stdlib'")


class TfdsSource:
    """A dataset by its TFDS name, `NAME[/CONFIG][:VERSION][@SPLIT]`, from `TFDS_DATA_DIR` or TFDS' own default folder.

    Documents are those of SPLIT (any TFDS split expression, such as `train[:1%]`), else of `train`, else of every
    split: gaplaw makes its own training and validation documents from them. The text is the feature `text`, or the only
    text feature; the domain is the text or class feature `domain` or `label`, else the dataset's name; a text feature
    `group` names documents that belong together.
    """

    def __init__(self, name: str, fetch: bool = True):
        self.where, self.fetch = f"DataSpec.source = 'tfds:{name}'", fetch
        self.name, _, self.wanted_split = name.partition("@")

    def manifest(self) -> str:
        """Name, configuration, version, and examples and bytes of every split: what TFDS pins about a prepared dataset."""
        builder = self._builder
        splits = [
            (s, builder.info.splits[s].num_examples, builder.info.splits[s].num_bytes) for s in builder.info.splits
        ]
        config = builder.builder_config.name if builder.builder_config else ""
        return short_hash([RECIPE, builder.name, config, str(builder.version), sorted(splits), self.wanted_split])

    def documents(self) -> Iterator[Document]:
        builder = self._builder
        text, domain = self._text_feature(), self._domain_feature()
        if self.wanted_split:
            splits = [self.wanted_split]
        else:
            splits = ["train"] if "train" in builder.info.splits else sorted(builder.info.splits)
        for split in splits:
            yield from _read(builder, split, text, domain, where=self.where)

    @cached_property
    def _builder(self):
        tfds = _import_tfds()
        with contextlib.redirect_stdout(sys.stderr), _without_absl_warnings():
            try:
                try:
                    builder = tfds.builder(self.name)  # prepared on this machine, or defined where TFDS looks by itself
                except tfds.core.DatasetNotFoundError:
                    importlib.import_module("tensorflow_datasets.text")  # not registered by itself without TensorFlow
                    builder = tfds.builder(self.name)
                if not builder.is_prepared():
                    if not self.fetch:
                        raise DataError("not prepared on this machine")
                    builder.download_and_prepare(file_format="array_record")
            except Exception as error:  # TFDS raises dozens of kinds here: unknown name, no network, missing TensorFlow
                raise DataError(f"{self.where}: TFDS could not open or prepare it: {_first_line(error)}") from error
        return builder

    def _text_feature(self) -> str:
        features = self._builder.info.features
        taken = (*DOMAIN_FEATURES, "group")
        kinds = _import_tfds().features
        names = sorted(features) if isinstance(features, kinds.FeaturesDict) else []
        texts = [n for n in names if isinstance(features[n], kinds.Text) and n not in taken]
        if "text" not in texts and len(texts) != 1:
            raise DataError(
                f"{self.where}: needs a text feature 'text', or exactly one text feature; its features: {names}"
            )
        return "text" if "text" in texts else texts[0]

    def _domain_feature(self) -> str | None:
        features, kinds = self._builder.info.features, _import_tfds().features
        labels = (kinds.Text, kinds.ClassLabel)
        return next((n for n in DOMAIN_FEATURES if n in features and isinstance(features[n], labels)), None)


_library_manifest_once = lru_cache(maxsize=4)(library_manifest)


def _import_tfds():
    """TFDS, with one clear line when it is absent."""
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise DataError(f"TensorFlow Datasets cannot be imported ({error}); {install_with('train')}") from error


@contextlib.contextmanager
def _without_absl_warnings():
    """TFDS warns of folders that are merely absent; what matters is raised."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read(builder, split: str, text: str, domain: str | None, *, where: str) -> Iterator[Document]:
    """The examples of one split, by random access, in their stored order; the domain is the dataset's name without labels."""
    features = builder.info.features
    labels = features[domain].int2str if domain and hasattr(features[domain], "int2str") else None
    grouped = "group" in features
    try:
        rows = builder.as_data_source(split)
    except Exception as error:  # a bad split expression, or tfrecord files, which only TensorFlow reads
        raise DataError(f"{where}: split {split!r} cannot be read by random access: {_first_line(error)}") from error
    for start in range(0, len(rows), READ_AHEAD):
        for number, row in enumerate(rows.__getitems__(range(start, min(start + READ_AHEAD, len(rows)))), start):
            content = _as_text(row[text], where, split, number)
            if not content.strip():
                continue
            label = builder.name
            if domain:
                label = labels(int(row[domain])) if labels else _as_text(row[domain], where, split, number)
            group = _as_text(row["group"], where, split, number) if grouped else text_group(content)
            yield Document(text=content, domain=label, group=group)


def _as_text(value, where: str, split: str, number: int) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: example {number} of split {split!r} is not UTF-8 at byte {error.start}") from error

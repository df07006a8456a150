"""Where do documents come from? The standard library or any TensorFlow Datasets dataset here, folders in `folder`.

Both TFDS paths write array_record and read it back by random access; TensorFlow is never imported. Imported on first
use only, so that a corpus whose tokens are cached starts without TFDS.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import shutil
import sys
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

from gaplaw.canonical import short_hash
from gaplaw.data.documents import Document, Source, text_group
from gaplaw.data.folder import FolderSource
from gaplaw.data.stdlib_corpus.texts import library_folder, library_manifest
from gaplaw.errors import DataError
from gaplaw.files import damage, sha256_of, write_sums
from gaplaw.packages import install_with

RECIPE = "tfds-2"  # raise when the same dataset would yield other documents
DOMAIN_FEATURES = ("domain", "label")
READ_AHEAD = 256
DESCRIPTION = "dataset_info.json"  # its words and dates do not change a document; counts and lengths stand in the files
LIBRARY_BYTES = 20 << 20  # about; of CPython 3.11


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
        self.cache, self.left_out = cache, {}

    def manifest(self) -> str:
        return _library_manifest_once(library_folder())

    def size_bytes(self) -> int:
        return LIBRARY_BYTES

    def documents(self) -> Iterator[Document]:
        from filelock import FileLock

        tfds = _import_tfds()
        from gaplaw.data.stdlib_corpus.builder import StdlibCorpus

        tfds.disable_progress_bar()
        folder = self.cache / "tfds" / self.manifest()
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "prepare.lock"), contextlib.redirect_stdout(io.StringIO()):
            builder = StdlibCorpus(data_dir=folder, file_format="array_record")
            fault = damage(place := Path(builder.data_dir))
            if fault is not None:
                if place.exists():
                    print(f"warning: {fault}; the standard library is prepared again", file=sys.stderr)
                    shutil.rmtree(place)
                    builder = StdlibCorpus(data_dir=folder, file_format="array_record")
                builder.download_and_prepare()
                write_sums(place)
        return _read(builder, "train", "text", "domain", where="DataSpec.source = 'stdlib'")


class TfdsSource:
    """A dataset by its TFDS name, `NAME[/CONFIG][:VERSION][@SPLIT]`, from `TFDS_DATA_DIR` or TFDS' own default folder.

    Documents are those of SPLIT (any TFDS split expression, such as `train[:1%]`), else of `train`, else of every
    split: gaplaw makes its own training and validation documents from them. The text is the feature `text`, or the only
    text feature; the domain is the text or class feature `domain` or `label`, else the dataset's name; a text feature
    `group` names documents that belong together.
    """

    def __init__(self, name: str, fetch: bool = True):
        self.where, self.fetch, self.left_out = f"DataSpec.source = 'tfds:{name}'", fetch, {}
        self.name, _, self.wanted_split = name.partition("@")

    def manifest(self) -> str:
        """A hash of the files that documents are read from, of the features' files, and of name, version and split."""
        builder = self._builder
        config = builder.builder_config.name if builder.builder_config else ""
        shards = [(p.filename, p.skip, p.take) for split in self._splits() for p in self._pieces(split)]
        home = Path(builder.data_dir)
        features = [p for p in sorted(home.glob("*")) if p.suffix in (".json", ".txt") and p.name != DESCRIPTION]
        try:
            content = [(Path(name).name, sha256_of(Path(name)), skip, take) for name, skip, take in shards]
            content += [(path.name, sha256_of(path)) for path in features]
        except OSError as error:
            raise DataError(f"{self.where}: {error.filename} cannot be read: {error.strerror}") from error
        return short_hash([RECIPE, builder.name, config, str(builder.version), content, self.wanted_split])

    def size_bytes(self) -> int:
        return sum(split.num_bytes or 0 for split in self._builder.info.splits.values())

    def documents(self) -> Iterator[Document]:
        text, domain = self._text_feature(), self._domain_feature()
        for split in self._splits():
            yield from _read(self._builder, split, text, domain, where=self.where)

    def _splits(self) -> list[str]:
        if self.wanted_split:
            return [self.wanted_split]
        splits = self._builder.info.splits
        return ["train"] if "train" in splits else sorted(splits)

    def _pieces(self, split: str) -> list:
        """The files of a split, or of a TFDS expression of splits, and which examples of each."""
        try:
            return self._builder.info.splits[split].file_instructions
        except Exception as error:  # as in `_read`
            raise DataError(f"{self.where}: split {split!r} cannot be read: {_first_line(error)}") from error

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
    """The examples of one split, by random access, in their stored order; the domain is the dataset's name without
    labels.
    """
    features = builder.info.features
    labels = features[domain].int2str if domain and hasattr(features[domain], "int2str") else None
    grouped = "group" in features
    try:
        rows = builder.as_data_source(split)
    except Exception as error:  # a bad split expression, or tfrecord files, which only TensorFlow reads
        raise DataError(f"{where}: split {split!r} cannot be read by random access: {_first_line(error)}") from error
    for start in range(0, len(rows), READ_AHEAD):
        for number, row in enumerate(rows.__getitems__(range(start, min(start + READ_AHEAD, len(rows)))), start):
            content = _as_text(row[text], where, split, number).encode()
            copies = text_group(content)
            if copies is None:
                continue
            label = builder.name
            if domain:
                label = labels(int(row[domain])) if labels else _as_text(row[domain], where, split, number)
            group = _as_text(row["group"], where, split, number) if grouped else copies
            yield Document(content=content, domain=label, group=group)


def _as_text(value, where: str, split: str, number: int) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: example {number} of split {split!r} is not UTF-8 at byte {error.start}") from error

"""How does the standard library become a TensorFlow Datasets dataset? A real builder, written and read without
TensorFlow.

TFDS needs the class in a package folder, and `importlib_resources` installed, to prepare a dataset when TensorFlow is
absent.
"""

from __future__ import annotations

import tensorflow_datasets as tfds

from gaplaw.data.stdlib_corpus.texts import library_documents, library_folder


class StdlibCorpus(tfds.core.GeneratorBasedBuilder):
    """Labelled documents of the running Python's standard library; prepare it in a folder named by its manifest."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "code, docs, reference, tests and tables."}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="The source, docstrings, help topics, tests and tables of the Python that runs this builder.",
            homepage="https://docs.python.org/3/library/",
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "domain": tfds.features.Text(), "group": tfds.features.Text()}
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, document in enumerate(library_documents(library_folder())):
            if document.text.strip():
                yield number, {"text": document.text, "domain": document.domain, "group": document.group}

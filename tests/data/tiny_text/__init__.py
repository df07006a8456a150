"""TFDS builders for the tests of datasets by name; TFDS wants builder classes in a package folder."""

import numpy as np
import tensorflow_datasets as tfds

LINE = "document number {} of the tiny dataset, which says little. "


class _Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.3")
    FEATURES: dict = {}

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(self.FEATURES))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 40), "test": self._generate_examples(40, 50)}

    def _generate_examples(self, start, end):
        for number in range(start, end):
            yield number, self._row(number)


class TinyLabelled(_Tiny):
    """A text feature among others, and a class label."""

    FEATURES = {
        "title": tfds.features.Text(),
        "text": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["even", "odd"]),
    }

    def _row(self, number):
        return {"title": "t", "text": LINE.format(number), "label": number % 2}


class TinyPlain(_Tiny):
    """One text feature under another name, no labels."""

    FEATURES = {"body": tfds.features.Text(), "likes": tfds.features.Scalar(dtype=np.int64)}

    def _row(self, number):
        return {"body": LINE.format(number), "likes": number}


class TinyAmbiguous(_Tiny):
    """Two text features, neither of them called text."""

    FEATURES = {"question": tfds.features.Text(), "answer": tfds.features.Text()}

    def _row(self, number):
        return {"question": "why?", "answer": LINE.format(number)}

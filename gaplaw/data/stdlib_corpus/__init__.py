"""The embedded default corpus: `texts` reads the standard library, `builder` makes it a TFDS dataset."""

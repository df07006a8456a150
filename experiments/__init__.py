"""Experiments: one question per file, each a `Sweep` value; LOG.md keeps what was found."""

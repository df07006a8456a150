"""How is a group of cells trained? One compiled program, one shared teacher pass, rows out."""

from gaplaw.train.loop import run_group
from gaplaw.train.outcome import CellOutcome, Progress

__all__ = ["CellOutcome", "Progress", "run_group"]

"""How is a group of cells trained? One compiled program, one shared teacher pass, rows out."""

from gaplaw.train.loop import CellOutcome, Progress, run_group

__all__ = ["CellOutcome", "Progress", "run_group"]

"""What does a student learn from? Objectives and their evaluation, from hidden states, in token chunks."""

from gaplaw.distill.evaluate import Scores, score_batch, score_group, view
from gaplaw.distill.layout import Layout
from gaplaw.distill.objective import objective_losses
from gaplaw.distill.targets import Draws, Kept, TopK, batch_targets, keep
from gaplaw.distill.vocab import Output, Vocab

__all__ = [
    "Draws",
    "Kept",
    "Layout",
    "Output",
    "Scores",
    "TopK",
    "Vocab",
    "batch_targets",
    "keep",
    "objective_losses",
    "score_batch",
    "score_group",
    "view",
]

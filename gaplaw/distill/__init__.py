"""What does a student learn from? Objectives and their evaluation, from hidden states, in token chunks.

In reading order: vocab → layout → targets → views → chunked → evaluate. No method is named here: see `gaplaw.methods`.
"""

from gaplaw.distill.chunked import objective_losses, objective_means
from gaplaw.distill.evaluate import Scores, score_batch, score_group, view
from gaplaw.distill.layout import Layout
from gaplaw.distill.targets import Draws, Kept, Targets, TopK, keep, temperatures
from gaplaw.distill.views import TeacherInput, view_of
from gaplaw.distill.vocab import Output, Vocab

__all__ = [
    "Draws",
    "Kept",
    "Layout",
    "Output",
    "Scores",
    "Targets",
    "TeacherInput",
    "TopK",
    "Vocab",
    "keep",
    "objective_losses",
    "objective_means",
    "score_batch",
    "score_group",
    "temperatures",
    "view",
    "view_of",
]

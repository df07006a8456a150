"""What does a student learn from? Objectives and their evaluation, from hidden states, in token chunks."""

from gaplaw.distill.objective import Output, objective_losses
from gaplaw.distill.evaluate import Scores, score_batch

__all__ = ["Output", "Scores", "objective_losses", "score_batch"]

"""What does a student learn from? Objectives and their evaluation, from hidden states, in token chunks."""

from gaplaw.distill.evaluate import Scores, score_batch, view
from gaplaw.distill.objective import Layout, batch_targets, objective_losses
from gaplaw.distill.vocab import Output

__all__ = ["Layout", "Output", "Scores", "batch_targets", "objective_losses", "score_batch", "view"]

"""What does a student minimise? Every objective that a cell may have.

kd: labels and soft targets · reverse_kl · jsd: generalised Jensen-Shannon · taid: targets that move to the teacher.
"""

from gaplaw.methods.objectives.jsd import GeneralizedJSD
from gaplaw.methods.objectives.kd import ObjectiveSpec
from gaplaw.methods.objectives.reverse_kl import ReverseKL
from gaplaw.methods.objectives.taid import TAID

AnyObjective = ObjectiveSpec | ReverseKL | GeneralizedJSD | TAID  # the first is what JSON without a kind means

__all__ = ["TAID", "AnyObjective", "GeneralizedJSD", "ObjectiveSpec", "ReverseKL"]

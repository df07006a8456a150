"""What is one run? A model, a corpus, a recipe and a teacher make a cell; cells make a sweep.

In reading order: model → sizes → teacher_signal → identity → train → data → cell → execution → sweep.
"""

from gaplaw.methods.objectives import TAID, GeneralizedJSD, ObjectiveSpec, ReverseKL
from gaplaw.spec.cell import Cell, Init, Role
from gaplaw.spec.data import DataSpec
from gaplaw.spec.execution import Execution, HostsSpec, MeshSpec
from gaplaw.spec.identity import science
from gaplaw.spec.model import ModelSpec
from gaplaw.spec.sweep import Group, Sweep
from gaplaw.spec.teacher_signal import TeacherSignal
from gaplaw.spec.train import TrainSpec

__all__ = [
    "TAID",
    "Cell",
    "DataSpec",
    "Execution",
    "GeneralizedJSD",
    "Group",
    "HostsSpec",
    "Init",
    "MeshSpec",
    "ModelSpec",
    "ObjectiveSpec",
    "ReverseKL",
    "Role",
    "Sweep",
    "TeacherSignal",
    "TrainSpec",
    "science",
]

"""gaplaw: sweep teachers and students, fit the capacity-gap law, choose a teacher.

The public verbs, in walking order. Importing this package imports neither JAX nor pandas; each verb loads what it
needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for type checkers and for the documentation
    from gaplaw.law import fit as fit
    from gaplaw.law import load_law as load_law
    from gaplaw.results import read as read
    from gaplaw.spec import TAID as TAID
    from gaplaw.spec import Cell as Cell
    from gaplaw.spec import DataSpec as DataSpec
    from gaplaw.spec import GeneralizedJSD as GeneralizedJSD
    from gaplaw.spec import ModelSpec as ModelSpec
    from gaplaw.spec import ObjectiveSpec as ObjectiveSpec
    from gaplaw.spec import ReverseKL as ReverseKL
    from gaplaw.spec import Sweep as Sweep
    from gaplaw.spec import TeacherSignal as TeacherSignal
    from gaplaw.spec import TrainSpec as TrainSpec
    from gaplaw.spec.sizes import model_for as model_for

__version__ = "0.1.0"

_VERBS = {
    "ModelSpec": "gaplaw.spec",
    "DataSpec": "gaplaw.spec",
    "ObjectiveSpec": "gaplaw.spec",
    "ReverseKL": "gaplaw.spec",
    "GeneralizedJSD": "gaplaw.spec",
    "TAID": "gaplaw.spec",
    "TrainSpec": "gaplaw.spec",
    "TeacherSignal": "gaplaw.spec.teacher_signal",
    "Cell": "gaplaw.spec",
    "Sweep": "gaplaw.spec.sweep",
    "model_for": "gaplaw.spec.sizes",
    "read": "gaplaw.results",
    "fit": "gaplaw.law",
    "load_law": "gaplaw.law",
}

__all__ = ["__version__", *_VERBS]


def __getattr__(name):
    if name in _VERBS:
        return getattr(import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'gaplaw' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)

"""The law half of the walk: a teacher × student table in, a law with honest intervals out. No JAX anywhere below this
line.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for type checkers and for the documentation
    from gaplaw.law.fitting import fit as fit
    from gaplaw.law.flags import Flag as Flag
    from gaplaw.law.law import Law as Law
    from gaplaw.law.law import load_law as load_law
    from gaplaw.law.no_teacher.supervised_fit import fit_supervised as fit_supervised
    from gaplaw.law.table.read import read_table as read_table

_PUBLIC = {
    "fit": "gaplaw.law.fitting",
    "load_law": "gaplaw.law.law",
    "Law": "gaplaw.law.law",
    "Flag": "gaplaw.law.flags",
    "read_table": "gaplaw.law.table.read",
    "fit_supervised": "gaplaw.law.no_teacher.supervised_fit",
}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gaplaw.law' has no attribute {name!r}")

"""The law half of the walk: a teacher × student table in, a law with honest intervals out. No JAX anywhere below this
line.
"""

from importlib import import_module

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

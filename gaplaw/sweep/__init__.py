"""How are many cells planned, run by many processes, and watched? No JAX here except inside the worker process.

In reading order: load → owner, claim, lease → folder, bucket → checks → cost → planned, planning → board → engine, local, worker →
retry, job → waiting, eta, display → status → system, running.
"""

from importlib import import_module

_PUBLIC = {
    "load_experiment": "gaplaw.sweep.load",
    "resolve": "gaplaw.sweep.load",
    "plan": "gaplaw.sweep.planning",
    "Plan": "gaplaw.sweep.planned",
    "run": "gaplaw.sweep.running",
    "Summary": "gaplaw.sweep.status",
    "status_of": "gaplaw.sweep.status",
}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gaplaw.sweep' has no attribute {name!r}")

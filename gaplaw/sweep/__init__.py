"""How are many cells planned, run by many processes, and watched? No JAX here except inside the worker process.

In reading order: folder (what is finished, and whose is the rest) → planning → engines → running; rehearse and forecast
stand beside.
"""

from importlib import import_module

_PUBLIC = {
    "load_experiment": "gaplaw.sweep.planning.load",
    "resolve": "gaplaw.sweep.planning.load",
    "plan": "gaplaw.sweep.planning.make_plan",
    "Plan": "gaplaw.sweep.planning.plan",
    "run": "gaplaw.sweep.running.run",
    "Summary": "gaplaw.sweep.running.status",
    "status_of": "gaplaw.sweep.running.status",
}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gaplaw.sweep' has no attribute {name!r}")

"""Ink only: from a results table and a fitted law to figures and one page. Reads what it is given, fits nothing.

Reading order: style → protocols → view → panels → figures → curve_figures → detail_figures → law_figures → summary →
advice → tables → run_folder → page.
"""

from gaplaw.report.curve_figures import loss_curves
from gaplaw.report.detail_figures import domain_losses, fidelity, seed_pairing
from gaplaw.report.figures import student_loss
from gaplaw.report.law_figures import optimal_teacher, regret, residuals
from gaplaw.report.page import write_report

__all__ = [
    "domain_losses",
    "fidelity",
    "loss_curves",
    "optimal_teacher",
    "regret",
    "residuals",
    "seed_pairing",
    "student_loss",
    "write_report",
]

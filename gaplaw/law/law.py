"""What can a fitted law be asked? `Law`, as its users hold it: the questions of `fitted_law`, the choice, and a file.

Above both surfaces and the choice, beside `fitting`, which makes one from a table. Light: a law that is read from its
file answers without SciPy.
"""

from __future__ import annotations

from gaplaw.errors import LawError
from gaplaw.law.decide.choose import Choice
from gaplaw.law.decide.choose import choose as choose_teacher
from gaplaw.law.fitted_law import FittedLaw
from gaplaw.law.notebook_view import LawView
from gaplaw.law.storage import law_fields, law_to_dict, read_law, write_law
from gaplaw.law.teacher_loss.surface import LossSurface
from gaplaw.law.teacher_size.surface import BowlSurface

SURFACES = {"bowl": BowlSurface, "loss": LossSurface}


class Law(LawView, FittedLaw):
    """A fitted teacher law, as its users hold it.

    Ask it for `optimum`, `choose` and `predict`, or for draws (`optimum_draws`, `regret_draws`, `loss_draws`); look
    at `flags` before believing it. `gaplaw.fit` makes one; `save` and `load` keep it.
    """

    __slots__ = ()

    def choose(self, **question) -> Choice:
        """Which available teacher to use, by expected regret plus cost.

        Args:
            question: the arguments of `gaplaw.law.decide.choose.choose`: student_params, teachers, student_tokens,
                cost, price_per_flop, tolerance_nats.

        Returns:
            Choice.

        Raises:
            LawError: as `choose` does.
        """
        return choose_teacher(self, **question)

    def to_dict(self) -> dict:
        """The layout of law.json, arrays still as arrays."""
        return law_to_dict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Law:
        """The law that `to_dict`, or its JSON, describes.

        Args:
            data: a dict with 'schema_version'.

        Returns:
            Law, which answers exactly as the one that was written.

        Raises:
            LawError: another schema version, or a surface of an unknown kind.
        """
        known = law_fields(data)
        kind = known["surface"]["kind"]
        if kind not in SURFACES:
            raise LawError(f"law: surface kind {kind!r} must be one of {', '.join(SURFACES)}")
        return cls(**known | {"surface": SURFACES[kind].from_dict(known["surface"])})

    def save(self, path) -> None:
        """Write the law as JSON, whole or not at all.

        Args:
            path: the file, by convention law.json.

        Raises:
            LawError: the file cannot be written.
        """
        write_law(self.to_dict(), path)

    @classmethod
    def load(cls, path) -> Law:
        """Read a law written by `save`.

        Args:
            path: a path, or a URL such as s3://bucket/law.json.

        Returns:
            Law.

        Raises:
            LawError: no such file, not JSON, changed since it was written, or not a law of this schema version.
        """
        data = read_law(path)
        try:
            return cls.from_dict(data)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise LawError(f"law file {path}: not a readable law ({error!r}); fit again") from error


def load_law(path) -> Law:
    """Read a law written by `Law.save`; the same as `Law.load`.

    Args:
        path: a path or a URL.

    Returns:
        Law.

    Raises:
        LawError: no such file, not JSON, or not a law of this schema version.
    """
    return Law.load(path)

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
    """A fitted teacher law: `optimum`, `optimum_draws`, `regret_draws`, `predict`, `choose`; `save` and `load`."""

    __slots__ = ()

    def choose(self, **question) -> Choice:
        """Which available teacher to use; the arguments are those of `gaplaw.law.decide.choose.choose`."""
        return choose_teacher(self, **question)

    def to_dict(self) -> dict:
        """The layout of law.json, arrays still as arrays."""
        return law_to_dict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Law:
        """The law that `to_dict` or its JSON describes.

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

        Raises:
            LawError: the file cannot be written.
        """
        write_law(self.to_dict(), path)

    @classmethod
    def load(cls, path) -> Law:
        """Read a law written by `save`, from a path or a URL.

        Raises:
            LawError: no such file, not JSON, or not a law of this schema version.
        """
        return cls.from_dict(read_law(path))


def load_law(path) -> Law:
    """Read a law written by `Law.save`."""
    return Law.load(path)

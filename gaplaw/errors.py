"""What can a person do wrong, and what are they told? One class per kind of refusal; each message is one line.

Everything may import it. The command line prints the message without a traceback and exits with `exit_code`.
"""

from gaplaw.credentials import mask_credentials


class GaplawError(Exception):
    """A refusal that a person can act on: the message names the field, the value and the rule, in one line."""

    exit_code = 2

    def __init__(self, message: object = ""):
        super().__init__(mask_credentials(message))


class SpecError(GaplawError):
    """A specification that cannot be built: unknown size string, impossible shape, contradictory fields."""


class DataError(GaplawError):
    """A corpus or tokenizer that cannot be used: missing folder, not UTF-8, vocabulary mismatch."""


class AbsentDataError(DataError):
    """A corpus or a tokenizer file that is not on this machine; it may be on another."""


class TableError(GaplawError, ValueError):
    """A results table that cannot be read or fitted: missing column, NaN, duplicate, corrupt file."""


class MixedProtocolsError(TableError):
    """A table whose rows were trained under several protocols, of which none was chosen: they follow different laws."""


class CheckpointError(GaplawError):
    """A checkpoint that cannot be used: missing, corrupt, or of other science."""


class SignalError(GaplawError):
    """A teacher cache that cannot be used: damaged, or of another teacher, corpus or order."""


class SweepError(GaplawError):
    """A sweep that cannot run here: read-only folder, disk full, two experiments of one name, an experiment file that
    raises.
    """


class LawError(GaplawError):
    """A law that cannot be fitted or asked: too few teachers or students, an impossible question."""

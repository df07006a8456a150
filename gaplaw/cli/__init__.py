"""How is gaplaw used from a terminal? One verb per question; results on standard output, everything else on standard
error.

The verbs are typed functions (`sweeping`, `asking`): their signatures are the options and their docstrings the help.
This file only turns exceptions into one line and an exit code:

    0 done   1 some cells failed, or an unexpected error   2 bad input   3 the law refuses to answer   130 interrupted
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import traceback

from gaplaw.credentials import has_credentials, mask_credentials
from gaplaw.errors import GaplawError

_DESCRIPTION = """Which teacher should a student learn from? Sweep teachers and students, fit the law, choose.

In walking order:
  gaplaw plan quickstart && gaplaw run quickstart --out runs/quickstart
  gaplaw fit runs/quickstart && gaplaw choose runs/quickstart/law.json --student 3k --teachers 10k,30k,100k
  gaplaw report runs/quickstart

--debug, anywhere, shows the traceback of an unexpected error."""

_NOT_WRITABLE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns: the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        return _dispatch([word for word in given if word != "--debug"])
    except GaplawError as refusal:
        if "--json" in given:
            print(json.dumps({"error": {"kind": type(refusal).__name__, "message": str(refusal)}}))
        return _tell(f"error: {refusal}", refusal.exit_code)
    except KeyboardInterrupt:
        return _tell("interrupted; what was finished is kept, and the same command goes on from there", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as fault:
        if debug:
            raise
        if isinstance(fault, OSError) and fault.errno in _NOT_WRITABLE:
            place = fault.filename or "the output folder"
            return _tell(f"error: {place}: cannot be written ({fault.strerror}); what was finished is kept", 2)
        return _unexpected(fault)


def _dispatch(words: list[str]) -> int:
    import tyro

    from gaplaw.cli import asking, emitting, rehearsing, sweeping

    verbs = {
        "plan": sweeping.plan,
        "run": sweeping.run,
        "status": sweeping.status,
        "compact": sweeping.compact,
        "rehearse": rehearsing.rehearse,
        "emit": emitting.emit,
        "fit": asking.fit,
        "choose": asking.choose,
        "predict": asking.predict,
        "next": asking.next_cells,
        "report": asking.report,
        "power": asking.power,
    }
    secret = any(map(has_credentials, words)) and not {"-h", "--help"} & {*words}
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            verbs,
            prog="gaplaw",
            description=_DESCRIPTION,
            args=words,
            console_outputs=not secret,
            config=(tyro.conf.HelptextFromCommentsOff,),
        )
    except SystemExit as ended:
        if secret and ended.code == 2:  # tyro would repeat the words that it does not know
            return _tell("error: unknown words, which are not repeated because a URL holds credentials; see --help", 2)
        raise
    return code or 0


def _tell(line: str, code: int) -> int:
    print(f"gaplaw: {mask_credentials(line)}", file=sys.stderr)
    return code


def _unexpected(fault: Exception) -> int:
    """One line for what should not happen; the traceback goes to a file that the line names."""
    message = mask_credentials(" ".join(str(fault).split()))[:300]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="gaplaw-", suffix=".log", delete=False) as log:
            log.write(mask_credentials("".join(traceback.format_exception(fault))))
        where = f"traceback in {log.name}"
    except OSError:
        where = "--debug shows the traceback"
    return _tell(f"unexpected {type(fault).__name__}: {message} ({where})", 1)

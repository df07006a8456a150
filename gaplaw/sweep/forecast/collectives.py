"""How many bytes do the chips of a compiled program send to each other? Counted in XLA's own text, loops included.

XLA's `cost_analysis` counts the body of a loop once; here every collective operation is multiplied by the trips of the
loops around it. Reads text only, needs no JAX.
"""

from __future__ import annotations

import math
import re

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_COLLECTIVE = re.compile(
    r"= (?P<shape>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)
_ARRAY = re.compile(r"(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')
_LIMIT = re.compile(r"= s\d+\[\]\S* constant\((\d+)\)")


def sent_bytes(text: str) -> float:
    """Bytes that each chip sends in one call of a compiled program, from `compiled.as_text()`; a loop without fixed
    trips counts once.

    With n chips in a group and b bytes of an operation's output, a ring sends b·(n−1)/n for all-gather and all-to-all,
    twice that for all-reduce, b·(n−1) for reduce-scatter and b for a permutation.
    """
    bodies = _computations(text)
    times = _times(bodies)
    sent: dict[tuple, float] = {}
    for name, lines in bodies.items():
        for line in lines:
            if found := _COLLECTIVE.search(line):
                # an asynchronous operation is written into every fusion that it overlaps with: one channel, one sending
                key = (re.search(r"channel_id=(\d+)|$", line)[1], found["kind"], found["shape"].split("{")[0])
                scattered = name.startswith("all-reduce-scatter")
                sent[key] = max(sent.get(key, 0.0), times.get(name, 0) * _one(found, line, scattered))
    return sum(sent.values())


def _one(found: re.Match, line: str, scattered: bool) -> float:
    shape = found["shape"]
    if found["start"] and (found["kind"] != "all-reduce" or shape.startswith("((")):  # (operands, results, …)
        shape = _parts(shape)[1]
    size, members = sum(_array_bytes(*array) for array in _ARRAY.findall(shape)), _members(line)
    share = (members - 1) / members
    factor = {
        "all-gather": share,
        "all-to-all": share,
        "all-reduce": share if scattered else 2 * share,
        "reduce-scatter": members - 1,
        "collective-permute": 1,
    }
    return size * factor[found["kind"]]


def _parts(shape: str) -> list[str]:
    """The members of a tuple's shape, which may be tuples themselves: "(a[2], (b[3], c[4]))" is a[2] and (b[3],
    c[4]).
    """
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _array_bytes(kind: str, sides: str) -> int:
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])
    return math.prod(int(side) for side in sides.split(",") if side) * bits // 8


def _members(line: str) -> int:
    """Chips in one group of a collective, in any of the three ways in which XLA writes groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return listed[1].count(",") + 1
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(tiled[1])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    return 2


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of every computation by name; the entry is called ENTRY."""
    bodies, lines = {}, []
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            lines = bodies.setdefault("ENTRY" if head[1] else head[2], [])
        else:
            lines.append(line)
    return bodies


def _times(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one call of the program."""
    times: dict[str, int] = {}

    def visit(name: str, count: int) -> None:
        times[name] = times.get(name, 0) + count
        for line in bodies.get(name, ()):
            loop = _LOOP.search(line)
            trips = _trips(line, bodies.get(loop[1], ())) if loop else 1
            branches = [b.strip(" %") for found in _BRANCHES.findall(line) for b in found.split(",")]
            for called in _CALLED.findall(line) + branches:
                visit(called, count * trips)

    visit("ENTRY", 1)
    return times


def _trips(line: str, condition: list[str]) -> int:
    """Trips of a loop: as XLA says them, or the bound that its condition compares with."""
    known = _TRIPS.search(line)
    limits = [int(number) for line in condition for number in _LIMIT.findall(line)]
    return int(known[1]) if known else max(limits, default=1)

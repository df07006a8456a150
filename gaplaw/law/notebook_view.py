"""How do a law and a choice look at the end of a notebook cell or a prompt? A few lines of text, and small HTML tables.

Beside `text` at the end of the law half. `Law` and `Choice` take their `repr` and HTML form from the two classes
below; every number is read from the object, and a refusal is shown as one.
"""

from __future__ import annotations

from html import escape
from textwrap import shorten

from gaplaw.law.text import coordinate_words, interval_words, size_words

_MOST_COLUMNS = 116
_MOST_PARAMETERS = 3


class LawView:
    """The short `repr` and the HTML form of a `Law`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return law_lines(self)

    def _repr_html_(self) -> str:
        return law_html(self)


class ChoiceView:
    """The short `repr` and the HTML form of a `Choice`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return choice_lines(self)

    def _repr_html_(self) -> str:
        return choice_html(self)


def law_lines(law) -> str:
    """A law in at most three lines: its form and state, its parameters with 90 % intervals (or the refusal), its
    flags.
    """
    lines = [f"Law {law.form}, teachers known by {_axis(law)}: {'refused' if law.refused else law.status}"]
    if law.refused:
        lines.append(f"  no answer: {_refusal(law.flags)}")
    else:
        named = [f"{p.name} = {_parameter(p)}" for p in list(law.parameters.values())[:_MOST_PARAMETERS]]
        lines.append("  " + "; ".join(named))
    lines.append(f"  {len(law.students)} students measured; {_flag_count(law.flags)}")
    return "\n".join(_one_line(line) for line in lines)


def choice_lines(choice) -> str:
    """A choice in at most four lines: the answer, the optimum, the near-optimal teachers, the flags."""
    lines = [f"Choice for a student of {size_words(choice.student_params)}: {_answer(choice)}"]
    point = getattr(choice.optimum, choice.coordinate)
    if point is not None:
        span = interval_words(choice.optimum.interval90, choice.coordinate)
        lines.append(f"  best teacher: {coordinate_words(point, choice.coordinate)} (90 %: {span})")
        lines.append(f"  near-optimal of {len(choice.teachers)}: {', '.join(choice.near_optimal) or 'none'}")
    elif any(flag.severity == "refusal" for flag in choice.flags):
        lines.append(f"  no answer: {_refusal(choice.flags)}")
    lines.append(f"  {_flag_count(choice.flags)}")
    return "\n".join(_one_line(line) for line in lines)


def law_html(law) -> str:
    """A law as two small tables (parameters; the best teacher of each measured student) and its flags."""
    state = "refused" if law.refused else law.status
    parts = [_head(f"Law {law.form}", f"teachers known by {_axis(law)}; fit: {state}")]
    if law.refused:
        parts.append(f"<p><b>No answer:</b> {escape(_refusal(law.flags))}</p>")
    else:
        rows = [[p.name, f"{p.point:.4g}", _span(p.interval50), _span(p.interval90)] for p in law.parameters.values()]
        parts.append(_table(["parameter", "value", "50 %", "90 %"], rows))
    rows = [_student_row(law, student) for student in law.students]
    parts.append(_table(["student", "tokens", "teachers", "best teacher T*", "90 %"], rows))
    return _block(parts, law.flags)


def choice_html(choice) -> str:
    """A choice as a short list and a table of the teachers weighed, least regret plus cost first, with its flags."""
    tokens = "" if choice.student_tokens is None else f", {size_words(choice.student_tokens)} tokens"
    parts = [_head(f"Choice for a student of {size_words(choice.student_params)}{tokens}", f"cost case: {choice.cost}")]
    axis, optimum = choice.coordinate, choice.optimum
    answer = _answer(choice)
    parts.append(f"<p><b>{escape(answer[0].upper() + answer[1:])}</b></p>")
    if getattr(optimum, axis) is not None:
        rows = [
            ["best teacher", coordinate_words(getattr(optimum, axis), axis)],
            ["50 %", interval_words(optimum.interval50, axis)],
            ["90 %", interval_words(optimum.interval90, axis)],
            [f"near-optimal (within {choice.tolerance_nats:.4g} nats)", ", ".join(choice.near_optimal) or "none"],
        ]
        parts.append(_table([], rows))
    order = sorted(choice.teachers, key=lambda t: (t.expected_regret_nats is None, t.total_nats))
    rows = [
        [
            t.name,
            size_words(t.params) if t.params else "",
            "" if t.expected_regret_nats is None else f"{t.expected_regret_nats:.4f}",
            "" if t.p_best is None else f"{t.p_best:.0%}",
            "" if t.cost_nats is None else f"{t.cost_nats:.4f}",
            "recommended" if t.name == choice.recommended else "near-optimal" if t.name in choice.near_optimal else "",
        ]
        for t in order
    ]
    parts.append(_table(["teacher", "size", "regret, nats", "P(best)", "cost, nats", ""], rows))
    return _block(parts, choice.flags)


def _answer(choice) -> str:
    if choice.recommended is not None:
        return f"recommended teacher {choice.recommended}"
    if any(flag.severity == "refusal" for flag in choice.flags):
        return "no teacher recommended, the law refuses to answer"
    return "no teacher recommended, distillation is not worth it here"


def _refusal(flags) -> str:
    return next((flag.message for flag in flags if flag.severity == "refusal"), "the law refuses to answer")


def _axis(law) -> str:
    return "size" if law.coordinate == "teacher_params" else "loss"


def _parameter(p) -> str:
    return f"{p.point:.3g} (90 %: {_span(p.interval90)})"


def _span(pair) -> str:
    low, high = pair
    if low is None and high is None:
        return "open"
    return f"{'−∞' if low is None else f'{low:.3g}'} to {'∞' if high is None else f'{high:.3g}'}"


def _student_row(law, student) -> list[str]:
    joint = student.method("joint")
    row = [size_words(student.student_params), size_words(student.student_tokens), str(student.teachers)]
    if law.refused:
        return [*row, "none: refused", ""]
    if joint.censored:
        side = "at or below the lowest tried" if joint.censored == "low" else "at or above the highest tried"
        return [*row, side, ""]
    if joint.point is None:
        return [*row, "none", ""]
    return [*row, coordinate_words(joint.point, law.coordinate), interval_words(joint.interval90, law.coordinate)]


def _flag_count(flags) -> str:
    if not flags:
        return "no flags"
    counts = {name: sum(flag.severity == name for flag in flags) for name in ("refusal", "warning", "note")}
    return "flags: " + ", ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n)


def _one_line(line: str) -> str:
    """At most one terminal line, its indent kept."""
    indent = line[: len(line) - len(line.lstrip())]
    return indent + shorten(line, _MOST_COLUMNS - len(indent), placeholder=" …")


def _head(title: str, more: str) -> str:
    return f"<p><b>{escape(title)}</b>, {escape(more)}</p>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "<thead><tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr></thead>" if head else ""
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(str(text))}</td>" for text in rest)
        lines.append(f"<tr><th>{escape(str(first))}</th>{cells}</tr>")
    return f"<table>{top}<tbody>{''.join(lines)}</tbody></table>"


def _block(parts: list[str], flags) -> str:
    if flags:
        lines = (f"<li><b>{flag.severity}</b>: {escape(flag.message)}</li>" for flag in flags)
        parts = [*parts, f"<ul>{''.join(lines)}</ul>"]
    return f"<div>{''.join(parts)}</div>"

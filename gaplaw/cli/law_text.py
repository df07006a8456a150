"""What does a fitted law say, in a few lines for the terminal? Numbers come from the law; words from
`gaplaw.law.text`.
"""

from __future__ import annotations

from gaplaw.law.text import coordinate_words, interval_words, size_words


def law_text(law) -> str:
    """The form and its status, its parameters, each measured student's optimum, and every reason for doubt."""
    axis = law.coordinate
    share = f"{law.share_of_starts:.0%} of the starts reached the best fit"
    lines = [f"law: {law.form}, teachers by {axis}; {law.status}, {share}"]
    for name, parameter in law.parameters.items():
        low, high = parameter.interval90
        bounds = f"{_bound(low)} to {_bound(high)}"
        lines.append(
            f"  {name} = {parameter.point:.4g} (90 %: {bounds}){' ' + parameter.note if parameter.note else ''}"
        )
    lines.append("best measured teacher by student (90 % interval):")
    for student in law.students:
        joint = student.methods[-1]
        tokens = f", {size_words(student.student_tokens)} tokens" if student.student_tokens else ""
        place = coordinate_words(joint.point, axis) if joint.point is not None else "no interior optimum"
        notes = f", off the {joint.censored} end of the grid" if joint.censored else ""
        notes += ", methods disagree" if student.disagree else ""
        interval = interval_words(joint.interval90, axis)
        lines.append(f"  {size_words(student.student_params)}{tokens}: {place} ({interval}){notes}")
    lines += [f"{flag.severity}: {' '.join(flag.message.split())}" for flag in law.flags]
    return "\n".join(lines)


def _bound(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.4g}"

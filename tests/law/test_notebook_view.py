"""Are a law and a choice short at a prompt, whole in a notebook, honest when refused, and harmless with any name?"""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gaplaw.law import load_law
from gaplaw.law.flags import Flag
from gaplaw.law.law import Law
from tests.conftest import ROOT

VOID = {"br"}


@pytest.fixture(scope="module")
def law() -> Law:
    return load_law(ROOT / "experiments" / "results" / "quickstart" / "law.json")


@pytest.fixture(scope="module")
def choice(law):
    return law.choose(student_params="2k", teachers=["1.5k", "3.5k", "14k"])


@pytest.fixture(scope="module")
def worth_it(law):
    """A choice that recommends: the same law without its no-teacher losses."""
    teachers = [
        {"name": "Small", "params": 1500},
        {"name": "Mid-7B", "params": 2500},
        {"name": "Large", "params": 14_000},
    ]
    return replace(law, baseline=None).choose(student_params="2k", teachers=teachers)


def refused(law):
    return replace(law, flags=(Flag("few_students", "2 student sizes; a law needs at least 3", "refusal"), *law.flags))


class Text(HTMLParser):
    """The words of a fragment, and whether every element is closed."""

    def __init__(self, fragment: str):
        super().__init__()
        self.open, self.words = [], ""
        self.feed(fragment)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open += [tag] if tag not in VOID else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data + " "


def words(fragment: str) -> str:
    return Text(fragment).words


def assert_short(text: str) -> None:
    assert len(text.splitlines()) <= 4 and max(map(len, text.splitlines())) <= 120, text


def test_a_law_is_a_few_lines_with_its_form_and_intervals(law):
    text = repr(law)
    assert_short(text)
    ratio = law.parameters["ratio"]
    assert law.form in text and "converged" in text and "3 students" in text and "2 warnings, 1 note" in text
    assert f"ratio = {ratio.point:.3g} (90 %: {ratio.interval90[0]:.3g} to {ratio.interval90[1]:.3g})" in text


def test_the_html_of_a_law_has_every_parameter_every_student_and_every_flag(law):
    html_text = words(law._repr_html_())
    assert all(name in html_text for name in law.parameters) and "1.01k to 1.75k" in html_text
    assert all(flag.message in html_text for flag in law.flags)
    assert law._repr_html_().count("<tr>") == 2 + len(law.parameters) + len(law.students)


def test_a_refused_law_shows_the_refusal_and_no_number(law):
    one = refused(law)
    assert_short(repr(one))
    assert "refused" in repr(one) and "a law needs at least 3" in repr(one) and "90 %" not in repr(one)
    html_text = words(one._repr_html_())
    assert (
        "No answer:" in html_text
        and "a law needs at least 3" in html_text
        and "1.01k" not in html_text
        and "0.8001" not in html_text
    )


def test_a_choice_says_what_it_recommends_and_what_is_as_good(worth_it):
    assert_short(repr(worth_it))
    assert worth_it.recommended == "Mid-7B" and f"recommended teacher {worth_it.recommended}" in repr(worth_it)
    assert "best teacher: 2.47k (90 %: 1.93k to 3.29k)" in repr(worth_it)
    html_text = words(worth_it._repr_html_())
    assert (
        f"Recommended teacher {worth_it.recommended}" in html_text
        and "1.93k to 3.29k" in html_text
        and "2.23k to 2.72k" in html_text
    )
    for teacher in worth_it.teachers:
        assert teacher.name in html_text and f"{teacher.expected_regret_nats:.4f}" in html_text


def test_a_choice_against_distilling_and_a_refused_one_say_so(law, choice):
    assert "distillation is not worth it here" in repr(choice) and "not worth it here" in words(choice._repr_html_())
    none = refused(law).choose(student_params="2k", teachers=["1.5k"])
    assert (
        "refuses to answer" in repr(none)
        and "a law needs at least 3" in repr(none)
        and "best teacher" not in repr(none)
    )
    assert "refuses to answer" in words(none._repr_html_()) and "near-optimal" not in words(none._repr_html_())
    assert_short(repr(none))


def test_names_and_messages_are_escaped(law):
    name = "<script>alert('x')</script>&"
    bad = replace(law, flags=(Flag("odd", name, "warning"),))
    choice = bad.choose(student_params="2k", teachers=[{"name": name, "params": 2000}])
    for html in (bad._repr_html_(), choice._repr_html_()):
        assert "<script" not in html and "&lt;script&gt;" in html and name in words(html)


def test_long_texts_do_not_make_long_lines(law):
    choice = law.choose(student_params="2k", teachers=[{"name": f"teacher-{i}", "params": 2300 + i} for i in range(60)])
    assert_short(repr(choice))
    assert_short(repr(replace(law, form="x" * 50 + " " + "y " * 200)))

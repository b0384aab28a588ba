"""The English checker: each rule finds what is wrong, and accepts what is right."""

from __future__ import annotations

import pytest

from scripts.check_english import BRITISH, NOT_OURS, Passage, article_of, faults, files, passages

WRONG = """
it mends the row · nobody knows · the person whom it concerns · the task goes on where it stopped
run it to go on · it stands in for Regal · rejected just so · a row of old · the commonest reason
for want of a connection · kept for ever · we lose sight of it · it is buried in the log
that is hearsay · phones and the like · the newest word wins · sent all the same · the try before
the end thereof · it ought to stop · it is told of each row
outside of a task · that is no error · the source gives rows · 3 row(s)
behaviour · favourite colours · recognised · serialisation · cancelled · a licence · the centre · grey
whilst · analysed
an user · a object · a hour · an URL · a SQL query · a HTTP error · an JSON file · a 8-bit value
a IP address · an one · the the row · 1 rows
"""
RIGHT = """
no one knows · the user of Unix is `nobody` · ``nobody`` · it continues · go on strike · there is no error · in the log
it is no longer open · the source gives up · that that is read · behavior · color · canceled · recognized
a user · an object · an hour · a URL · an SQL query · an HTTP error · a JSON file · an 8-bit value · an IP address
a UUID · a one-off · a unit · an unnamed event · a NULL · the contacts a and b · a European phone · an xz file · an XCom
an MD5 hash · an RFC · a REST API · `an user` · 1 row · 0.1 rows · 11 rows · within 1 s · 1 address
"""


def found_in(text, **options):
    return list(faults(Passage(1, text, **options)))


def examples(text):
    return [one.strip() for line in text.strip().split("\n") for one in line.split(" · ")]


@pytest.mark.parametrize("text", examples(WRONG))
def test_what_is_wrong_is_found(text):
    assert found_in(text)


@pytest.mark.parametrize("text", examples(RIGHT))
def test_nothing_that_is_right_is_found(text):
    assert found_in(text) == []


def test_a_word_is_doubled_over_the_end_of_a_line_but_not_of_a_paragraph():
    assert found_in("once again\nagain") == [(1, "'again' is doubled")]
    assert found_in("# Rows\n\nRows are") == []


@pytest.mark.parametrize("rule", [*NOT_OURS.values(), *BRITISH.values()])
def test_each_rule_has_an_example(rule):
    reasons = [reason for text in examples(WRONG) for _, reason in found_in(text)]
    assert any(reason.endswith(f": {rule}") for reason in reasons)


@pytest.mark.parametrize("first", ["Say whether it is open.", "Gives the rows.", "Tell what it was."])
def test_a_docstring_begins_with_what_it_returns(first):
    assert "begins with" in found_in(first, is_docstring=True)[0][1]
    assert found_in(first) == []


def test_the_article_of_a_word_that_can_be_a_letter_is_not_known():
    assert article_of("b") == ""


def test_what_people_read_of_python_is_read_with_its_lines(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""A docstring."""\n\n# A comment\n# of two lines\nnobody = "mend"  # after code\n'
        'def f(x):\n    """Another."""\n    return f"read {x} of the rows", "SELECT nobody FROM t", "a message"\n'
    )
    read = [(passage.line, passage.text.strip()) for passage in passages(path)]
    assert sorted(read) == [
        (1, "A docstring."),
        (3, "A comment\n of two lines"),
        (5, "after code"),
        (7, "Another."),
        (8, "a message"),
        (8, "read § of the rows"),
    ]
    assert "a message" not in [passage.text for passage in passages(path, messages=False)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "page.md",
            "Fine.\n```sh\nnobody\n```\nSee [this](nobody.md) and https://example.com/nobody.\n\nHere nobody is.\n",
        ),
        (
            "page.html.j2",
            "<p class='nobody'>\n{{ nobody }}<code>nobody</code>\n{% if nobody %}\n\n\n\n{% endif %}nobody</p>",
        ),
    ],
)
def test_code_and_links_of_pages_are_left_out(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert [line for passage in passages(path) for line, _ in faults(passage)] == [7]


def test_docs_package_and_templates_are_among_what_is_checked():
    names = {path.name for path in files()}
    assert {
        "README.md",
        "index.md",
        "sql_to_regal.py",
        "01_first_events.py",
        "delivery.html.j2",
        "conftest.py",
    } <= names

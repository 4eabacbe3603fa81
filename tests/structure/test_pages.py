"""What templates say of their requests: what is typed while an answer is on its way counts, and is asked for once."""

from __future__ import annotations

import re

import pytest

from tests.structure.house import PACKAGE, ROOT, SOURCE

TEMPLATES = SOURCE / PACKAGE / "dashboard" / "templates"
TAG = re.compile(
    r"<(?:form|input|textarea|div|button|select)\b[^\n]*?hx-trigger=[^\n]*?>|\{\{ area\([^\n]*hx-trigger[^\n]*\}\}"
)
TRIGGER = re.compile(r"""hx-trigger"?[=:] ?"(?P<value>[^"]*)\"""")


def faults(tag: str) -> list[str]:
    """What is wrong with an element that asks by itself."""
    match = TRIGGER.search(tag)
    triggers = [] if match is None else [one.strip() for one in match["value"].split(",")]
    found = []
    typed = any(one.startswith("input") for one in triggers)
    if typed and not re.search(r"""hx-sync"?[=:] ?"([^"]*:)?replace\"""", tag):
        found.append("an answer on its way makes htmx forget all but the first thing typed since: hx-sync replace")
    if typed and "change" in triggers:
        found.append("leaving the field asks again and draws anew what is being pressed: change changed")
    if "change" in triggers and "hx-get" in tag and "hx-sync" not in tag:
        found.append("an answer on its way makes htmx forget all but the first choice made since: hx-sync replace")
    if "look" in triggers and 'id="list"' in tag and 'hx-sync="abort"' not in tag:
        found.append("an older look at everything could come after what a filter found: hx-sync abort")
    return found


def test_what_is_typed_last_is_what_is_shown() -> None:
    tags = [
        (path.relative_to(ROOT).as_posix(), tag)
        for path in sorted(TEMPLATES.rglob("*.html"))
        for tag in TAG.findall(path.read_text())
    ]
    assert len(tags) > 20
    assert [(where, fault, tag) for where, tag in tags for fault in faults(tag)] == []


@pytest.mark.parametrize(
    ("tag", "number"),
    [
        ('<form hx-trigger="input changed delay:250ms, change changed, submit" hx-sync="#list:replace">', 0),
        ('<form hx-trigger="input changed delay:250ms, change changed, submit">', 1),
        ('<form hx-trigger="input changed delay:250ms, change, submit" hx-sync="#list:replace">', 1),
        ('{{ area("a", "A", more={"hx-trigger": "input changed delay:400ms"}) }}', 1),
        ('{{ area("a", "A", more={"hx-trigger": "input changed delay:400ms", "hx-sync": "replace"}) }}', 0),
        ('<select hx-get="/keys" hx-trigger="change">', 1),
        ('<select hx-get="/keys" hx-trigger="change" hx-sync="replace">', 0),
        ('<div id="list" hx-trigger="look">', 1),
        ('<form hx-trigger="arrived">', 0),
    ],
)
def test_it_would_be_found(tag: str, number: int) -> None:
    assert TAG.fullmatch(tag)
    assert len(faults(tag)) == number

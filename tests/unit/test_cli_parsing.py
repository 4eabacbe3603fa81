"""What is written on the command line means one thing, or is refused with exit code 2 before anything is opened."""

from __future__ import annotations

import os
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ostiary.agents.policy import ALL, Choice
from ostiary.cli import main, show, words
from ostiary.cli.words import Given, Pair
from ostiary.errors import CannotStart, Refusal


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", 90_000),
        ("15m", 900_000),
        ("12h", 43_200_000),
        ("30d", 2_592_000_000),
        ("2w", 1_209_600_000),
        ("1y", 31_536_000_000),
        (" 1h ", 3_600_000),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, ms: int) -> None:
    assert words.duration(text) == ms


@pytest.mark.parametrize(
    "text", ["", "h", "12", "0h", "-1h", "1.5h", "1 h", "1H", "1M", "٣h", "9999999h", "1h30m", "never"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        words.duration(text)


def test_words_that_clear_are_told_from_nothing_given() -> None:
    assert words.lifetime("never") == Given(None)
    assert words.lifetime("1h") == Given(3_600_000)
    assert words.usd("none") == Given(None)
    assert words.usd("$0.5") == Given(500_000_000)
    assert words.usd("0") == Given(0)
    assert words.count("none") == Given(None)
    assert words.count("60") == Given(60)
    assert words.metadata("none") == {}


def test_percents_and_days_are_whole() -> None:
    assert words.percents("50, 80,100") == Given((50, 80, 100))
    assert words.percents("none") == Given(None)
    for text in ("", "50,", "-5", "5.5", "٣", "50;80", "1000"):
        with pytest.raises(ValueError, match="percents"):
            words.percents(text)
    assert [words.days(text) for text in ("90", "90d", "2w", "none")] == [Given(90), Given(90), Given(14), Given(None)]
    for text in ("0", "36h", "x", "-1"):
        with pytest.raises(ValueError, match="is not a"):
            words.days(text)
    assert (words.longest("90d"), words.longest("none")) == (Given(90 * 86_400_000), Given(None))


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "in less than a minute"),
        (59_999, "in less than a minute"),
        (60_000, "in 1 minute"),
        (3_599_999, "in 59 minutes"),
        (86_399_999, "in 23 hours"),
        (6 * 86_400_000 + 5, "in 6 days"),
        (1_500 * 86_400_000, "in 1,500 days"),
        (-1, "less than a minute ago"),
        (-2 * 86_400_000, "2 days ago"),
    ],
)
def test_how_far_away_a_time_is(ms: int, said: str) -> None:
    assert words.away(1_795_000_000_000 + ms, 1_795_000_000_000) == said


@pytest.mark.parametrize("text", ["", "five", "-1", "1e99", "NaN", "Infinity", "0.0000000001", "10000000000", "1,5"])
def test_an_amount_is_exact_and_bounded(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        words.usd(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.0", "1e3", "٣", "2000000001", "all"])
def test_a_count_is_whole_and_positive(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        words.count(text)


def test_a_choice_is_all_none_or_names() -> None:
    assert words.choice("all") == ALL
    assert words.choice("none") == Choice("none")
    assert words.choice("a, b,,a") == Choice("only", frozenset({"a", "b"}))
    for text in ("", " , ", "all,a", "none,all"):
        with pytest.raises(ValueError, match=r".+"):
            words.choice(text)


@pytest.mark.parametrize("text", ["{", "[]", "1", '"x"', '{"a": NaN}', "{'a': 1}", "{} {}"])
def test_metadata_is_a_json_object(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        words.metadata(text)


def test_a_pair_keeps_what_follows_its_first_equals_sign() -> None:
    assert words.pair("region = a=b") == Pair("region", " a=b")
    assert words.pair("region=") == Pair("region", "")
    for text in ("", "region", "=x"):
        with pytest.raises(ValueError, match="NAME=VALUE"):
            words.pair(text)


@given(st.integers(min_value=0, max_value=9_000_000_000 * 10**9))
def test_what_is_printed_as_usd_reads_back_as_the_same_amount(nano: int) -> None:
    assert words.usd(str(show.usd(nano))) == Given(nano)
    assert words.usd(show.dollars(nano)) == Given(nano)


@given(st.integers(min_value=0, max_value=9_000_000_000 * 10**9))
def test_money_in_json_is_a_number_with_all_its_digits(nano: int) -> None:
    text = msgspec.json.format(show.encode({"usd": show.usd(nano)})).decode()
    number = text.partition(":")[2].rstrip("}\n ").strip()
    assert Decimal(number) * 10**9 == nano


def test_a_cell_of_a_table_cannot_drive_a_terminal() -> None:
    assert show.cell("a\x1b[2Jb\nc\u202e") == "a\\u001b[2Jb c\\u202e"
    assert show.cell({"\x1b": ["\x9b"]}) == "\\u001b=\\u009b"
    values: list[object] = [None, "", [], {}, True, False, 0]
    assert [show.cell(value) for value in values] == ["–", "–", "–", "–", "yes", "no", "0"]


# ---- the commands themselves --------------------------------------------------------------------------------------

NOUNS = ["vault", "keys", "credentials", "orgs", "members", "prices"]
VERBS = ["serve", "demo", "doctor", "usage", "traces"]
EVERY = sorted(main._COMMANDS)


def run(*arguments: str) -> tuple[int, str]:
    nowhere = {"OSTIARY_DATA_DIR": "/dev/null/nowhere"}  # whatever slips through the parser opens nothing
    done = CliRunner().invoke(main.app, list(arguments), prog_name="ostiary", env=nowhere)
    return done.exit_code, done.output


def test_help_lists_every_command_and_loads_none() -> None:
    code, output = run("--help")
    assert code == 0
    assert all(f"  {name} " in output for name in NOUNS + VERBS)


@pytest.mark.parametrize("name", EVERY)
def test_every_command_explains_itself(name: str) -> None:
    code, output = run(name, "--help")
    assert code == 0
    assert f"Usage: ostiary {name}" in output
    assert "-completion" not in output, "nothing here writes into anybody's shell"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("keys", "nonsense"),
        ("keys", "create"),
        ("keys", "create", "--name"),
        ("keys", "create", "--name", "x", "--nonsense"),
        ("keys", "create", "--name", "x", "--budget-usd", "much"),
        ("keys", "create", "--name", "x", "--budget-usd", "-1"),
        ("keys", "create", "--name", "x", "--rpm", "0"),
        ("keys", "create", "--name", "x", "--expires", "tomorrow"),
        ("keys", "create", "--name", "x", "--metadata", "[]"),
        ("keys", "create", "--name", "x", "--models", ","),
        ("keys", "create", "--name", "x", "--budget-period", "year", "--budget-usd", "1"),
        ("keys", "create", "--name", "x", "--budget-period", "month"),
        ("keys", "create", "--name", "x", "--ip", "all", "--ip", "10.0.0.0/8"),
        ("keys", "edit", "x"),
        ("keys", "rotate", "x", "--overlap", "soon"),
        ("keys", "show"),
        ("vault", "add", "openai"),
        ("vault", "add", "openai", "--name", "x", "--field", "region"),
        ("vault", "edit", "x"),
        ("orgs", "create"),
        ("orgs", "create", "a", "--name", "b"),
        ("members", "role", "a@b.example"),
        ("prices", "set", "openai/gpt-4o", "--input", "1"),
        ("prices", "set", "openai/gpt-4o", "--input", "1", "--output", "cheap"),
        ("usage", "--since", "yesterday"),
        ("traces", "--limit", "-1"),
        ("traces", "--limit", "many"),
        ("serve", "--port", "http"),
        ("serve", "--port", "65536"),
        ("demo", "--port", "65536"),
        ("demo", "--port", "-1"),
    ],
)
def test_what_is_not_understood_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    code, output = run(*arguments)
    assert code == 2, output
    assert "Error: " in output


def test_a_misspelled_command_names_the_near_one() -> None:
    assert "Did you mean 'vault'?" in run("vualt")[1]


def test_the_version_is_shown() -> None:
    code, output = run("--version")
    assert code == 0
    assert output.startswith("ostiary 0.")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CannotStart("The disk is full. Make room."), "ostiary: The disk is full. Make room.\n"),
        (Refusal("not_found", "There is no such key."), "ostiary: There is no such key.\n"),
        (Refusal("not_found", "It said \x1b[2J."), "ostiary: It said \\u001b[2J.\n"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    assert crash(monkeypatch, error) == 1
    assert capsys.readouterr() == ("", said)


def test_a_fault_of_ours_is_a_traceback_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "ost_pat_" + "aB3" * 16 + "x"
    assert crash(monkeypatch, RuntimeError(f"no such column: {secret}")) == 1
    said = capsys.readouterr().err
    assert "RuntimeError: no such column: ost_pat_***" in said
    assert secret not in said


def crash(monkeypatch: pytest.MonkeyPatch, error: Exception) -> object:
    def fails() -> None:
        raise error

    monkeypatch.setattr(main, "commands", fails)
    before = os.umask(0)
    try:
        with pytest.raises(SystemExit) as ended:
            main.run()
    finally:
        os.umask(before)
    return ended.value.code

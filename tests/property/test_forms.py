"""However a form is cut up on its way, it is the same form; and whatever comes, it is read or refused."""

from __future__ import annotations

import itertools
import string
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from python_multipart.multipart import parse_options_header

from ostiary.errors import Refusal
from ostiary.gateway.form import _Reading
from ostiary.gateway.form_head import part_of, written_head
from ostiary.providers.dialect import Form
from ostiary.providers.upload import Upload

MARK = "bound"
TRICKY = st.lists(
    st.sampled_from([b"\r\n", b"--", b"bound", b"\r", b"\n", b"-", b"a", b"\x00", b"\r\n--bound", b"\r\n--boun"]),
    max_size=12,
).map(b"".join)
DATA = (st.binary(max_size=60) | TRICKY).filter(lambda data: b"\r\n--bound" not in b"\r\n" + data)


def read(body: bytes, cuts: list[int]) -> Form:
    reading = _Reading(MARK, Upload(Path("/nowhere")), ("file",))
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, end in itertools.pairwise(places):
        reading.feed(body[start:end])
    return reading.finish()


def sent(form: Form) -> list[tuple[str, str | None, bytes]]:
    """What goes out, read by another parser."""
    body = form.write("served")
    reader, raw = body.reader(), b""
    while not reader.is_done:
        raw += reader.take(7)
    assert len(raw) == len(body)
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + body.content_type.encode() + b"\r\n\r\n" + raw)
    found = []
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        name = part.get_param("name", header="content-disposition")
        found.append((str(name), part.get_filename(), content))
    return found


@given(
    file=DATA.filter(lambda data: not data.endswith((b"\r", b"\n"))),
    text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    order=st.permutations(["file", "model", "prompt"]),
    cuts=st.lists(st.integers(0, 500), max_size=9),
)
def test_the_same_form_arrives_however_it_was_cut(file: bytes, text: str, order: list[str], cuts: list[int]) -> None:
    heads = {"file": 'name="file"; filename="a.mp3"', "model": 'name="model"', "prompt": 'name="prompt"'}
    values = {"file": file, "model": b"asked", "prompt": text.encode()}
    body = b"".join(
        f"--{MARK}\r\nContent-Disposition: form-data; {heads[name]}\r\n\r\n".encode() + values[name] + b"\r\n"
        for name in order
    )
    form = read(body + f"--{MARK}--\r\n".encode(), cuts)
    assert form.model == "asked"
    assert form.fields == {"prompt": [text]}
    assert [(one.name, one.size, one.file_name) for one in form.files] == [("file", len(file), "a.mp3")]
    expected = {**values, "model": b"served"}
    arrived = [(name, content) for name, _, content in sent(form)]
    assert [name for name, _ in arrived] == order
    for name, content in arrived:
        if content != expected[name]:  # the standard library mends line ends of what it takes for text
            assert content.replace(b"\r\n", b"\n") == expected[name].replace(b"\r\n", b"\n")


@given(body=st.binary(max_size=200) | TRICKY, cuts=st.lists(st.integers(0, 200), max_size=5))
def test_whatever_comes_is_read_or_refused(body: bytes, cuts: list[int]) -> None:
    found: Form | Refusal
    try:
        found = read(f"--{MARK}\r\n".encode() + body, cuts)
    except Refusal as refusal:
        found = refusal
    assert isinstance(found, Form) or found.status in (400, 413)


# ---- heads ------------------------------------------------------------------------------------------------------

CRAFTY = st.lists(
    st.sampled_from(
        ["a", "ä", "model", "name=", "; ", ";", "=", '\\"', "\\\\", "\\", "'", "''", "utf-8''", "%22", " ", ":", "*"]
    )
    | st.text(st.sampled_from(string.printable), max_size=3),
    max_size=8,
).map("".join)
PARAMETER = st.builds(
    lambda name, value, quote: f"; {name}={quote}{value}{quote}",
    st.sampled_from(["name", "filename", "filename*", "Name", "FILENAME"]),
    CRAFTY | st.just("UTF-8''%C3%A4.mp3"),
    st.sampled_from(['"', '"', ""]),
)
NAMED = st.sampled_from(['; name="file"', "; name=file", '; name="a;b=c"', "; NAME=model"])
HEADS = (
    st.tuples(NAMED | PARAMETER, PARAMETER, st.just("") | PARAMETER)
    .flatmap(st.permutations)
    .map(lambda told: "form-data" + "".join(told))
)


@given(head=HEADS)
@example(head='form-data; name="zz"; filename*="a; name=model; x=y"')
@example(head='form-data; filename="a\\\\"; name="; name=model; x="')
@example(head='form-data; name="file"; filename="a\\\\"')
@example(head='form-data; name="file"; filename="a\\"; name=model; x=\\"b"')
@example(head="form-data; name=file; filename*=UTF-8''%C3%A4.mp3")
@example(head='form-data; name="a;b"; filename="c;d;e"')
def test_what_is_written_of_a_head_says_to_another_parser_what_we_took(head: str) -> None:
    try:
        part = part_of({"content-disposition": head})
    except Refusal:
        return
    written = written_head(part, None)
    assert written.count("\r\n") == 1
    _, told = parse_options_header(written.strip().partition(": ")[2].encode())
    assert told.pop(b"name").decode() == part["name"]
    assert bool(told.pop(b"filename", b"")) == ("filename" in part)
    assert told == {}


@given(head=st.sampled_from(["form-data; name=file; filename=", 'form-data; name="file"; filename=']), name=CRAFTY)
def test_a_file_never_has_an_empty_name(head: str, name: str) -> None:
    try:
        part = part_of({"content-disposition": head + f'"{name}"'})
    except Refusal:
        return
    assert part["filename"]

"""Text and JSON for other programs, whatever bytes a file's name holds."""

import json
import os

import pytest

from spade_faiss._support.text import json_text, printable, valid

LATIN = os.fsdecode(b"caf\xe9\xff.png")


@pytest.mark.parametrize("text", ["", "a b.png", "ümlaut", "\n\t\u2028", "\\udce9", "😀"])
def test_what_is_unicode_stays_as_it_is(text):
    assert valid(text) == text and json.loads(json_text(text)) == text


def test_bytes_that_are_none_are_written_out():
    assert valid(LATIN) == printable(LATIN) == r"caf\udce9\udcff.png"
    assert printable("two\nlines") == r"two\nlines"


def test_json_is_for_strict_parsers():
    value = {LATIN: [LATIN, (LATIN, 1, 0.5, None, True)], "a": {"b": {"c": LATIN}}}
    shown = r"caf\udce9\udcff.png"
    text = json_text(value)
    assert json.loads(text) == {
        shown: [shown, [shown, 1, 0.5, None, True]],
        "a": {"b": {"c": shown}},
    }
    json.loads(text)[shown][0].encode()  # which raises of lone surrogates
    assert json_text({"a": [1]}, indent=1) == json.dumps({"a": [1]}, indent=1)

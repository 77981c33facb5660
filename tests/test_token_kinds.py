"""Kinds of tokens: known pieces of code, and laws that hold however a text is cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.token_kinds import KEYWORDS, KINDS, token_kinds


def named(tokens, language):
    return [KINDS[kind] for kind in token_kinds(tokens, language)]


@pytest.mark.parametrize("language, tokens, kinds", [
    ("lua", ["local", " n", " =", " #", "s", " --", " len", "gth\n", "end"],
     "keyword identifier punctuation punctuation identifier comment comment comment keyword"),
    ("python", ["def", " f", "(x", "):", " #", " if", "\n", "   ", " return", ' "', "if", '"'],
     "keyword identifier identifier punctuation comment comment other other keyword literal literal literal"),
    ("go", ["x", ":=", " 0", "x1", "f", " /*", " a\n", "b", " */", " func"],
     "identifier punctuation literal literal literal comment comment comment comment keyword"),
    ("ruby", ["emp", "ty?", " and", " s", ".", "size"],
     "identifier identifier keyword identifier punctuation identifier"),
    ("lua", ["--[[", " a", "\n", " b", "]]", " or"], "comment comment other comment comment keyword"),
    ("C++", ["template", "<", "T", ">"], "keyword punctuation identifier punctuation"),
    ("klingon", ["elsif", " // no"], "keyword comment"),
])  # fmt: skip
def test_pieces_of_code(language, tokens, kinds):
    assert named(tokens, language) == kinds.split()


def test_a_piece_is_what_most_of_it_is():
    assert named(["xyz("], "python") == ["identifier"] and named(["x)))"], "python") == ["punctuation"]


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60), st.sampled_from([*KEYWORDS, "unknown"]), st.data())
def test_every_text_has_kinds_and_characters_decide_them(text, language, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    of_pieces, of_characters = token_kinds(pieces, language), token_kinds(list(text), language)
    assert of_pieces.dtype == np.uint8 and len(of_pieces) == len(pieces)
    start = 0
    for piece, kind in zip(pieces, of_pieces, strict=True):
        within = {c for c, sign in zip(of_characters[start : start + len(piece)], piece, strict=True)
                  if not sign.isspace()}  # fmt: skip
        assert kind in within or not within and KINDS[kind] == "other"
        start += len(piece)

"""Kinds of tokens: known pieces of code, and laws that hold however a text is cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.attention.token_kinds import KINDS, diff_kinds, has_diff, message_kinds, token_kinds

LANGUAGES = ["python", "javascript", "typescript", "go", "ruby", "julia", "lua", "java", "rust", "scala", "swift",
             "kotlin", "c", "c++", "c#", "php", "perl", "bash", "haskell", "ocaml", "racket", "unknown"]  # fmt: skip
HOSTILE = [
    "'\"`", "'\\", "r'''\\", '" """', "` ``", "[=[ ", "--[=[", "#= ", "{- ", "(* ", "/* ", "#| ", "=begin\n", "<'a",
]  # fmt: skip


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
    ("klingon", ["while", " // no"], "keyword comment"),
    ("python", ["x", " =", " r", "'''", "if", "\n", " it's", "'''", " or", " '''", "not"],
     "identifier punctuation literal literal literal other literal literal keyword literal literal"),
    ("python", ["x", " =", " f", "'", "if", "'", " or", " Rb", '"', "in", '"', " if"],
     "identifier punctuation literal literal literal literal keyword literal literal literal literal keyword"),
    ("python", ["does", "n", "'t", " return", " if", " b", "'s", " in"],
     "identifier identifier identifier keyword keyword identifier identifier keyword"),
    ("java", ["5", '"', " if", " the", " users", "'", " for"],
     "literal punctuation keyword identifier identifier punctuation keyword"),
    ("rust", ["fn", " f", "<", "'a", ">", "(x", ":", " &", "'a", " str", ")", " if", " '", "x", "'", " '", "\\n", "'"],
     "keyword identifier punctuation identifier punctuation identifier punctuation punctuation identifier keyword "
     "punctuation keyword literal literal literal literal literal literal"),
    ("rust", ["'outer", ":", " loop", " {", " break", " 'outer", ";", " b'\\''", " }", ' b"', "if", '"'],
     "identifier punctuation identifier punctuation keyword identifier punctuation literal punctuation literal literal "
     "literal"),
    ("julia", ["#=", " if", " #=", " a", " =#", "\n", " end", " =#", " x", "'", " =", " [", "a", "]'", " #", " if"],
     "comment comment comment comment comment other comment comment identifier punctuation punctuation punctuation "
     "identifier punctuation comment comment"),
    ("julia", ["(a", ")'", " if", " '", "x", "'", " end"],
     "identifier punctuation keyword literal literal literal keyword"),
    ("lua", ["x", " =", " [[", "if", "\n", " end", "]]", " or", " [=[", " ]]", " if", "]=]", " end", " t", "[i", "]"],
     "identifier punctuation literal literal other literal literal keyword literal literal literal literal keyword "
     "identifier identifier punctuation"),
    ("lua", ["--[=[", " if", "\n", "]]", " end", "]=]", " or"],
     "comment comment other comment comment comment keyword"),
    ("ruby", ["x", " =", " begin", "\n", "=begin", "\n", "if", "\n", "=end", " of it", "\n", "if"],
     "identifier punctuation keyword other comment other comment other comment comment other keyword"),
    ("bash", ["if", " #", " doesn", "'t", "\n", "echo", " $#", " ${#", "x", "}", " //", " `", "ls", "`", " while"],
     "keyword comment comment comment other identifier punctuation literal identifier literal punctuation "
     "literal identifier literal keyword"),
    ("perl", ["$#", "x", " =", " 1", ";", " # if", "\n", "`", "ls", "`"],
     "punctuation identifier punctuation literal punctuation comment other literal literal literal"),
    ("haskell", ["x", "'", " =", " '", "a", "'", " --", " if", "\n", "{-", " {- if", " -}", " of", " -}", " if"],
     "identifier punctuation punctuation literal literal literal comment comment other comment comment comment "
     "comment comment keyword"),
    ("ocaml", ["(*", " if", " *)", " if", " 'a", " list"], "comment comment comment keyword identifier keyword"),
    ("racket", ["(x", " '", "(if", ")", " #\\", '"', ")", " ;", " if"],
     "identifier punctuation literal punctuation literal literal punctuation comment comment"),
    ("c", ["#", "include", " <", "stdio", ".", "h", ">", "\n", "#if", " x", " //", " if"],
     "punctuation keyword literal literal literal literal literal other keyword keyword comment comment"),
    ("go", ["x", " :=", " `", "if", "\n", "\\", "`", " if", " '", "x", "'"],
     "identifier punctuation literal literal other literal literal keyword literal literal literal"),
    ("typescript", ["x", " =", " tag", "`", "if", " ${", "x", "}", "\n", "\\`", "`", " if"],
     "identifier punctuation identifier literal literal literal identifier literal other literal literal keyword"),
    ("javascript", ["```", "js", "\n", "if", "\n", "```", " ``", " else"],
     "punctuation identifier other keyword other punctuation literal keyword"),
    ("php", ["`", "ls", "`", " # if", "\n", "// if"], "literal literal literal comment other comment"),
    ("scala", ["`", "if", "`", " s", '"""', "if", "\n", "if", '"""', " if"],
     "identifier identifier identifier literal literal literal other literal literal keyword"),
    ("c", ["returns", "=", "ins", "!="], "identifier punctuation identifier punctuation"),
])  # fmt: skip
def test_pieces_of_code(language, tokens, kinds):
    assert named(tokens, language) == kinds.split()


def test_a_piece_is_what_most_of_it_is():
    assert named(["xyz("], "python") == ["identifier"] and named(["x)))"], "python") == ["punctuation"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_long_text_of_quotes_and_brackets_is_read(language):
    """Some lexers try the rest of the text from each sign: their time must stay bearable at the length of a prompt."""
    for signs in HOSTILE:
        assert len(token_kinds([signs * (4_000 // len(signs))], language)) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_string_that_is_cut_off_ends_with_its_line(language):
    line = ["x", " =", ' "abc', " while"]
    kinds = named([*line, "\n", *line], language)
    assert [kinds[i] for i in (0, 2, 3, 5, 7, 8)] == ["identifier", "literal", "literal"] * 2


BLOCK_COMMENTS = {"lua": "--[[", "ruby": "\n=begin\n", "julia": "#=", "haskell": "{-", "ocaml": "(*", "racket": "#|"}


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one not in ("python", "perl", "bash")])
def test_a_comment_that_is_cut_off_goes_on_to_the_end(language):
    opening = BLOCK_COMMENTS.get(language, "/*")
    assert (
        named(["x ", opening, " a while", "\n", " x"], language) == "identifier comment comment other comment".split()
    )


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60), st.sampled_from(LANGUAGES), st.data())
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


DIFF = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n if x:\n-    return -1\n+    return +2\n\\ No newline at end of file"


def test_the_lines_of_a_diff_and_the_verb_of_a_message_have_kinds_of_their_own():
    prompt = f"Write it.\n### Diff:\n{DIFF}\n### Commit Message:\n"
    tokens = [part + end for part in prompt.split("\n") for end in ("", "\n")]
    kinds = {
        token: KINDS[kind] for token, kind in zip(tokens, diff_kinds(tokens, "python"), strict=True) if token.strip()
    }
    lines = {line: kinds[line] for line in DIFF.split("\n")}
    assert list(lines.values()) == ["other", "other", "other", "context", "removed", "added", "other"]
    outside = {line: kinds[line] for line in ("Write it.", "### Diff:", "### Commit Message:")}
    assert not set(outside.values()) & {"added", "removed", "context"}
    words = ["Re", "name", " x", " to", " 2", " !"]
    assert [KINDS[kind] for kind in message_kinds(words, "python")] == [
        "verb", "verb", "identifier", "identifier", "literal", "punctuation",
    ]  # fmt: skip
    assert not message_kinds(["", " "], "python")[0] == KINDS.index("verb")


@pytest.mark.parametrize("text, found", [
    (DIFF, True), ("x\n" + DIFF, True), ("--- a\n+++ b\nno hunk", False), ("x = 1 --- a\n+++ b\n@@ 1 @@", False),
])  # fmt: skip
def test_a_diff_is_known_by_its_head_and_its_hunk(text, found):
    assert has_diff(text) is found
    if not found:
        np.testing.assert_array_equal(diff_kinds([text], "python"), token_kinds([text], "python"))


def test_a_digit_names_each_kind_in_the_explorer():
    assert len(KINDS) <= 10

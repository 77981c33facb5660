"""Java sources as one file whose class StudykitMain starts the program."""

from __future__ import annotations

import re
from dataclasses import dataclass

QUIET = re.compile(  # comments and literals, also those that do not end
    r'//[^\n]*|/\*(?:[\s\S]*?\*/|[\s\S]*)|"""(?:[\s\S]*?"""|[\s\S]*)|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
)
TOKEN = re.compile(r"[{}();]|\b(?:class|interface|enum|record)\s+(\w+)")
MAIN = re.compile(r"((?:\b(?:public|static|final|synchronized|strictfp)\s+)+)void\s+main\s*\(")
IMPORT = re.compile(r"^import (?:static )?(?!static |javax?\.)[\w.*]+;|^package .*;", re.MULTILINE)


@dataclass(frozen=True)
class JavaClass:
    """One class, interface, enum or record at the top of a file."""

    name: str
    start: int  # where its modifiers and annotations begin
    declared: int  # where its keyword is
    end: int  # behind its body
    public: bool
    has_main: bool


def classes(text: str) -> list[JavaClass]:
    """Returns the top-level classes of a source, in order; none behind a body that does not end."""
    text = QUIET.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found, start, depth, parentheses, current = [], 0, 0, 0, None
    for token in TOKEN.finditer(text):
        if token[0] in "()":
            parentheses += 1 if token[0] == "(" else -1
        elif token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0 and parentheses == 0:
                if current:
                    body = text[current[1] : token.end()]
                    has_main = any("static" in modifiers for modifiers in MAIN.findall(body))
                    public = bool(re.search(r"\bpublic\b", text[start : current[1]]))
                    found.append(JavaClass(current[0], start, current[1], token.end(), public, has_main))
                start, current = token.end(), None
        elif token[0] == ";":
            if depth == 0:
                start = token.end()
        elif depth == 0 and parentheses == 0 and current is None:
            current = token[1], token.start()
    return found


def program(text: str, last: str = "") -> str:
    """Returns one file whose class StudykitMain runs the program's main and then the statements `last`.

    The main is that of the public class, else of the last class that has one; with statements it is the last one, the
    tests'. Imports of packages that are not part of Java are dropped, so that only programs which need them fail.
    """
    text = IMPORT.sub("", text)
    all_classes = classes(text)
    with_main = [item for item in all_classes if item.has_main]
    chosen = (
        [item for item in with_main if item.public and not last]
        or with_main[-1:]
        or [c for c in all_classes if c.public]
    )
    for item in reversed(all_classes):  # a public class would need a file of its name
        modifiers = re.sub(r"\bpublic\b", "", text[item.start : item.declared], count=1)
        text = text[: item.start] + modifiers + text[item.declared :]
    run = f"{chosen[0].name if chosen else 'Main'}.main(args);"
    body = last.format(run=run) or run
    main = f"public static void main(java.lang.String[] args) throws java.lang.Throwable {{ {body} }}"
    return f"{text}\nclass StudykitMain {{ {main} }}\n"

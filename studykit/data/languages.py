"""Programming languages by their many names: what a study, a data set, a folder and a prompt call them."""

from __future__ import annotations

LANGUAGE_NAMES = {
    "python": "Python",
    "javascript": "JavaScript",
    "typescript": "TypeScript",
    "go": "Go",
    "ruby": "Ruby",
    "julia": "Julia",
    "lua": "Lua",
    "java": "Java",
    "rust": "Rust",
    "scala": "Scala",
    "swift": "Swift",
    "kotlin": "Kotlin",
    "c": "C",
    "c++": "C++",
    "c#": "C#",
    "php": "PHP",
}

# MultiPL-E names languages by file extensions, HumanEval-X and folders by words without signs.
ALIASES = {
    "py": "python", "python2": "python", "python3": "python", "js": "javascript", "ts": "typescript", "golang": "go",
    "rb": "ruby", "jl": "julia", "rs": "rust", "kt": "kotlin", "cpp": "c++", "cxx": "c++", "cs": "c#", "csharp": "c#",
    "c_sharp": "c#", "c-sharp": "c#", "pl": "perl", "sh": "bash", "rkt": "racket", "hs": "haskell", "ml": "ocaml",
}  # fmt: skip


def canonical(word: str) -> str:
    """The lower-case name of a language: "Python", "py" and "python3" are python."""
    word = word.strip().lower()
    return ALIASES.get(word, word)


def display_name(language: str) -> str:
    """A language as a prompt writes it; one that is not known is written as the study names it."""
    return LANGUAGE_NAMES.get(canonical(language), language)

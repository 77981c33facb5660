"""Prompt templates, and the encoding of a row as token ids.

A template is text with named holes. One hole, the body, may be long: when a prompt must be shortened, the end of the
body is cut, never the markers around it. The defaults for translation, commit messages and summarization are those of
the AdvFusion authors' released code; the code-generation default states the description under the same markers.
"""

from __future__ import annotations

from string import Formatter

from studykit.params import UserError

LANGUAGE_NAMES = {
    "python": "Python",
    "javascript": "JavaScript",
    "go": "Go",
    "ruby": "Ruby",
    "julia": "Julia",
    "lua": "Lua",
    "java": "Java",
    "rust": "Rust",
    "scala": "Scala",
    "swift": "Swift",
    "c": "C",
    "cpp": "C++",
    "c++": "C++",
    "csharp": "C#",
    "c#": "C#",
    "php": "PHP",
}

TEMPLATES = {
    "generation": "### Description:\n{description}\n### Code written in {language}:\n",
    "translation": "### Code written in {source_language}:\n{code}\n### Code written in {language}:\n",
    "commit": "Write the commit message of this change and nothing else.\n### Diff:\n{diff}\n### Commit Message:\n",
    "summarization": "{code}\n### Response:\n",
}
BODIES = {"generation": "description", "translation": "code", "commit": "diff", "summarization": "code"}


def display_name(language: str) -> str:
    return LANGUAGE_NAMES.get(language, language)


def check_template(task: str, template: str | None) -> str:
    """The template to use; raises UserError if its holes are not those of the task."""
    template = TEMPLATES[task] if template is None else template
    body = BODIES[task]
    allowed = {"language", body} | ({"source_language"} if task == "translation" else set())
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"template={template!r} is unusable ({error}); a brace of its own is written twice.") from None
    # A conversion or a format ("!r", ":>9") is part of a hole here, and so makes it an unknown one.
    holes = [name + (how or "") + spec for _, name, spec, how in parts if name is not None]
    if unknown := [hole for hole in holes if hole not in allowed]:
        raise UserError(f"template={template!r} has the hole {{{unknown[0]}}}; its holes may be {sorted(allowed)}.")
    if holes.count(body) != 1 or not any(text.strip() for text, _, _, _ in parts):
        raise UserError(f"template={template!r} needs the hole {{{body}}} once, and some text around it.")
    return template


def fill(task: str, template: str, fields: dict[str, str]) -> tuple[str, list[int]]:
    """The prompt, and where its body begins and ends in it (characters)."""
    text, span = "", [0, 0]
    for literal, hole, _, _ in Formatter().parse(template):
        text += literal
        if hole == BODIES[task]:
            span = [len(text), len(text) + len(fields[hole])]
            text += fields[hole]
        elif hole is not None:
            text += display_name(fields[hole])
    return text, span


def encode_prompt(row: dict, tokenizer, max_prompt_tokens: int) -> tuple[list[int], bool]:
    """Token ids of a row's prompt, and whether its body had to be cut to fit `max_prompt_tokens`."""
    ids = tokenizer(row["prompt"])["input_ids"]
    if len(ids) <= max_prompt_tokens:
        return ids, False
    start, end = row["meta"].get("body", [0, len(row["prompt"])])

    def cut(length: int) -> list[int]:
        return tokenizer(row["prompt"][: start + length] + row["prompt"][end:])["input_ids"]

    low, high = 0, end - start  # invariant: low fits, high does not
    if len(cut(0)) > max_prompt_tokens:
        raise UserError(
            f"max_prompt_tokens={max_prompt_tokens} is too small: the template alone of row {row['id']!r} takes "
            f"{len(cut(0))} tokens."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(cut(middle)) <= max_prompt_tokens else (low, middle)
    return cut(low), True


def encode_row(row: dict, tokenizer, max_prompt_tokens: int, max_target_tokens: int) -> dict:
    """A row as the model sees it in training.

    Prompt and target are tokenized apart, as in generation, where the prompt comes alone. A whole target ends with
    the end-of-text token; a truncated one does not, which would teach the model to stop early.

    Returns: input_ids (list of T), labels (T; -100 over the prompt), prompt_length, prompt_cut, target_cut.
    """
    prompt, prompt_cut = encode_prompt(row, tokenizer, max_prompt_tokens)
    target = tokenizer(row["target"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    target_cut = len(target) > max_target_tokens
    target = target[:max_target_tokens]
    return {
        "input_ids": prompt + target,
        "labels": [-100] * len(prompt) + target,
        "prompt_length": len(prompt),
        "prompt_cut": prompt_cut,
        "target_cut": target_cut,
    }

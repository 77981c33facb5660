"""What notebooks 00 and 01 accept: the parameters of bases and of rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from studykit.errors import show
from studykit.study.fields import DataFormat, Dtype, Planned, Quantization, Section, Task, role, run_dir
from studykit.study.languages import LANGUAGE_NAMES, canonical


class BaseModelParams(Section):
    """00_base_model: the frozen base, made from scratch or fetched."""

    base: Planned[str] = role(
        "scratch",
        "The base model is 'scratch' (trained here), a hub id such as owner/name@commit, or a local directory.",
    )
    quantization: Quantization = role(
        "none", "The base's weights are kept in memory as they are (none), in 4 bits (nf4) or in 8 bits (int8)."
    )
    dtype: Dtype = role(
        "auto",
        "The base's weights, unless quantized, are in fp32, in bf16, or in bf16 on a GPU that is fast with it (auto).",
    )
    task: Task = role(
        "generation",
        "A base from elsewhere is shown prompts, made of built-in programs, of this task: generation, translation, "
        "commit, summarization or naming.",
    )
    languages: Planned[list[str]] = role(None, "These are all languages of the study, the target last.")
    target: Planned[str] = role(None, "This is the low-resource language.")
    corpus: str = Field(
        "polyglot",
        min_length=1,
        description=(
            "The base reads programs of the kit's own ('polyglot') or files <language>.jsonl "
            "with `content` in this directory."
        ),
    )
    seed: int = Field(
        0, ge=0, description="The seed decides the corpus, the initial weights and the order of the sequences."
    )
    vocab_size: int = Field(640, ge=257, description="The byte-level BPE vocabulary has this many entries.")
    hidden_size: int = Field(
        96, ge=8, description="The residual stream is this wide; it must be a multiple of 2 * heads."
    )
    layers: int = Field(3, ge=1, description="The model has this many decoder layers.")
    heads: int = Field(4, ge=1, description="Every layer has this many attention heads.")
    intermediate_size: int = Field(288, ge=8, description="The MLP of every layer is this wide.")
    context: int = Field(128, ge=16, description="A training sequence has this many tokens.")
    steps: int = Field(1000, ge=1, description="The base is trained for this many optimizer steps.")
    batch_size: int = Field(16, ge=1, description="An optimizer step reads this many sequences.")
    learning_rate: float = Field(
        1e-2, gt=0, le=1, description="The learning rate starts at this peak and decays linearly."
    )
    samples: int = Field(40_000, ge=100, description="The built-in corpus has this many programs.")
    target_share: float = Field(0.1, ge=0, lt=1, description="This share of the corpus is in the target language.")
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _divisible(self) -> BaseModelParams:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be a multiple of 2 * heads")
        return self


class DataParams(Section):
    """01_data: rows with prompt, target and checks for every language."""

    base: Planned[str] = run_dir("This base_model run provides the tokenizer.")
    task: Task = role(
        "generation",
        (
            "The model is asked for a program (generation), the same program in another "
            "language (translation), a commit message (commit), a summary (summarization) or "
            "a method's name (naming)."
        ),
    )
    members: Planned[list[str]] = role(None, "These are all members of the study, the target last.")
    target: Planned[str] = role(None, "This member has few examples.")
    language: str = role("", "If the members are tasks, all rows are in this language; elsewhere it is empty.")
    path: str | None = Field(
        None,
        min_length=1,
        description=(
            "The rows come from this file, directory or hf://datasets/... address; null means the built-in programs."
        ),
    )
    test_path: str | None = Field(
        None, min_length=1, description="The test rows come from here; null means that `path` has them."
    )
    format: DataFormat = Field(
        "auto", description="The rows have this data set's format; auto recognises it by files and fields."
    )
    source_examples: int = Field(
        2000, ge=1, description="A member besides the target has at most this many training rows."
    )
    target_examples: int = Field(30, ge=1, description="The target has at most this many training rows.")
    valid_examples: int = Field(48, ge=1, description="Every member has at most this many validation rows.")
    valid: Literal["rows", "k_fold"] = Field(
        "rows",
        description=(
            "The steps of trainings on the target are chosen on its validation rows (rows), or by three-fold "
            "cross-validation on its training rows, so that it needs no others (k_fold)."
        ),
    )
    test_examples: int = Field(250, ge=1, description="Every member has at most this many test rows.")
    max_prompt_tokens: int = Field(96, ge=4, description="A prompt has at most this many tokens.")
    max_target_tokens: int = Field(96, ge=4, description="A target has at most this many tokens.")
    template: str | None = Field(
        None,
        description="The prompt is this text with {fields} of the row; null means the published default of the task.",
    )
    truncation: Literal["body", "end"] = Field(
        "body",
        description=(
            "A prompt that is too long loses the end of its body (body), or its own end with the markers there, as "
            "published (end)."
        ),
    )
    end_of_target: Literal["eos", "newline_eos"] = Field(
        "eos",
        description=(
            "A target that is trained on ends with the end-of-text token (eos), or with a newline before it, as "
            "published (newline_eos)."
        ),
    )
    end_cut_targets: bool = Field(
        False,
        description="A target that had to be cut ends with the end-of-text token all the same, as published.",
    )
    diff_context: int = Field(
        3, ge=0, description="The diff of a commit shows this many unchanged lines around each change."
    )
    split_by: Literal["repository", "file", "row"] = Field(
        "repository", description="Commits of one repository, of one file, or of neither (row) stay in one split."
    )
    reference: Literal["auto", "docstring", "docstring_tokens"] = Field(
        "auto",
        description=(
            "The reference of a summary is the whole docstring, or the docstring_tokens of its first paragraph with "
            "spaces between them, as in CodeXGLUE; auto takes these for rows of CodeXGLUE and the docstring for others."
        ),
    )
    shares: list[float] = Field(
        [0.8, 0.1, 0.1],
        description="Rows without splits are divided into train, valid and test by these three shares.",
    )
    near_duplicates: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Training rows that are this similar to others are dropped, on a scale up to 1; null drops none.",
    )
    kinship: list[float] | None = Field(
        None,
        description=(
            "The members are languages made from Lua, and the sources have these shares, from 0 to 1, in common with "
            "the target, dealt by the seed; null means that the members are languages of their own."
        ),
    )
    kinship_in: Literal["tokens", "structure"] = Field(
        "tokens",
        description="What made languages have in common are words (tokens), or quarters of the grammar (structure).",
    )
    bad_rows: int = Field(0, ge=0, description="At most this many malformed rows are skipped before the run stops.")
    seed: int = Field(0, ge=0, description="The seed decides which rows are drawn and how they are split.")
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _shares_add_up(self) -> DataParams:
        trained, test = self.shares[:2], self.shares[2:]
        if len(test) != 1 or min(trained) <= 0 or test[0] < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(
                f"shares is {show(self.shares)}; it must be three numbers with the sum 1, of which only "
                "the last, the test's, may be 0"
            )
        if self.test_path is not None and self.path is None:
            raise ValueError(f"test_path is {show(self.test_path)}, without a path to train on; it must stand by path")
        return self

    @model_validator(mode="after")
    def _makes_languages(self) -> DataParams:
        if self.kinship is None:
            return self
        if not self.kinship or not all(0 <= share <= 1 for share in self.kinship):
            raise ValueError(f"kinship is {show(self.kinship)}; it must be a list of numbers from 0 to 1")
        if self.path is not None:
            raise ValueError(f"kinship is {show(self.kinship)}, beside a path; made languages have no other rows")
        if self.language:
            raise ValueError(f"kinship is {show(self.kinship)}, with members that are tasks; it needs languages")
        if known := [name for name in self.members or () if canonical(name) in LANGUAGE_NAMES]:
            raise ValueError(f"members names {known[0]!r}, but with kinship all are made; give it a name of its own")
        if self.members is not None and len(self.kinship) != len(self.members) - 1:
            raise ValueError(
                f"kinship has {len(self.kinship)} numbers for {len(self.members) - 1} sources; each must have one"
            )
        if self.kinship_in == "structure" and any(4 * share % 1 for share in self.kinship):
            raise ValueError(f"kinship is {show(self.kinship)}; with kinship_in: structure it must be quarters")
        return self

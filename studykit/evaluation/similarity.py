"""Measures of how similar two languages are, each from 0 (nothing in common) to 1 (the same), without a large model.

`kinship` has one more, `cross_entropy`: the loss of the source's adapter on the target's rows, in nats and negated.

- `tokens`: the overlap of the distributions of code tokens, sum_t min(p_t, q_t);
- `tokenizer`: the same overlap of the entries of the base's vocabulary;
- `programs`: of programs that exist in both languages (rows of one group), the share of tokens that stay when one is
  edited into the other, 2 M / T (Ratcliff and Metzener 1988);
- `syntax`: the cosine of the counts of (parent, child) pairs in syntax trees, whose kinds of nodes are mapped to
  classes that grammars share (`CLASSES`); None for a language without a grammar;
- `outputs`: linear CKA (Kornblith et al. 2019, "Similarity of neural network representations revisited", eq. 5) of what
  two members of a fusion add on the same rows of the target, the mean over its layers.

    tokens(["return a"], ["return b"])  # 0.5
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from studykit.data.rows import DataRun, Row
from studykit.evaluation.metrics import syntax_trees
from studykit.runs.manifest import finished_run
from studykit.study.fusion_parameters import FusionParams
from studykit.study.languages import canonical
from studykit.training.base import load_tokenizer
from studykit.training.batches import Collator, encode_rows
from studykit.training.fusions import load_trained
from studykit.training.phases import training_phases
from studykit.tuners.model import active_fusions

TOKEN = re.compile(r'"[^"\n]*"|[^\W\d]\w*|\d+|[^\w\s]+')
ROWS = 100  # of each language that are read, at most
OUTPUT_ROWS = 16  # rows of the target on which members are compared
CLASSES = {  # class -> a part of the names that grammars give to its nodes; the first that fits counts
    "function": "function|method|lambda|closure|arrow",
    "condition": r"(^|_)if|else|conditional|ternary|guard|switch|match",
    "loop": r"(^|_)for|while|loop|range_clause|comprehension|generator|(^|_)do(_|$)",
    "return": "return",
    "call": "call|invocation",
    "index": "index|subscript|element_reference|slice",
    "assignment": "assign|declarat|var_spec|(^|_)let(_|$)|short_var",
    "operation": "binary|unary|operat|comparison|logical|concat",
    "list": "list|array|table|vector|tuple|literal_value",
    "name": "identifier|(^|_)name|field|member|selector",
    "number": "number|integer|float|int_literal",
    "text": "string|char|symbol|regex",
    "arguments": "argument|parameter",
    "block": "block|body|chunk|program|module|source|statement",
}
_CLASSES = {name: re.compile(pattern) for name, pattern in CLASSES.items()}


def of_sources(
    measures: Sequence[str], data_run: str, base_run: str, sources: Sequence[str], target: str
) -> dict[str, dict[str, float | None]]:
    """Returns the similarity of each source to the target, by measure and source, on the test rows of a data run.

    Args:
        measures: some of `gather_parameters.OF_TEXTS`.
        base_run: has the tokenizer of the measure `tokenizer`.
    """
    rows = {name: DataRun(data_run).rows(name, "test")[:ROWS] for name in (*sources, target)}
    texts = {name: [row.target for row in of_name] for name, of_name in rows.items()}
    tokenizer: Any = load_tokenizer(base_run) if "tokenizer" in measures else None
    pairwise: dict[str, Callable[[str], float | None]] = {
        "tokens": lambda name: tokens(texts[name], texts[target]),
        "tokenizer": lambda name: vocabulary(texts[name], texts[target], tokenizer),
        "programs": lambda name: programs(rows[name], rows[target]),
        "syntax": lambda name: syntax(texts[name], texts[target], (name, target)),
    }
    return {measure: {name: pairwise[measure](name) for name in sources} for measure in measures}


def overlap(a: Counter, b: Counter) -> float:
    """Returns the overlap of two distributions given by counts: 1 minus their total variation distance."""
    return sum(min(a[key] / a.total(), b[key] / b.total()) for key in a.keys() & b.keys())


def tokens(a: Sequence[str], b: Sequence[str]) -> float:
    """Returns the overlap of the code tokens of two sets of programs."""
    first, second = (Counter(token for text in texts for token in TOKEN.findall(text)) for texts in (a, b))
    return overlap(first, second)


def vocabulary(a: Sequence[str], b: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """Returns the overlap of the entries of a tokenizer's vocabulary in two sets of programs."""
    first, second = (
        Counter(entry for text in texts for entry in tokenizer(text, add_special_tokens=False)["input_ids"])
        for texts in (a, b)
    )
    return overlap(first, second)


def programs(a: Sequence[Row], b: Sequence[Row]) -> float | None:
    """Returns how much of the tokens of the same programs two languages share in order; None if there is no pair."""
    first, second = _by_group(a), _by_group(b)
    pairs = [(TOKEN.findall(first[key]), TOKEN.findall(second[key])) for key in first.keys() & second.keys()]
    ratios = [SequenceMatcher(None, one, other, autojunk=False).ratio() for one, other in pairs]
    return sum(ratios) / len(ratios) if ratios else None


def _by_group(rows: Sequence[Row]) -> dict[tuple[str, int], str]:
    """Targets by group and place in it: a group may have several programs, in one order in all languages."""
    seen: Counter[str] = Counter()
    found = {}
    for row in rows:
        if row.group:
            found[row.group, seen[row.group]] = row.target
            seen[row.group] += 1
    return found


def syntax(a: Sequence[str], b: Sequence[str], languages: tuple[str, str]) -> float | None:
    """Returns the cosine of the (parent, child) pairs of two sets of programs; None without a grammar for both."""
    names = [canonical(language) for language in languages]
    if not all(name in syntax_trees.MODULES for name in names):
        return None
    first, second = (
        Counter(pair for text in texts for pair in _pairs(text, name))
        for texts, name in zip((a, b), names, strict=True)
    )
    product = sum(first[pair] * second[pair] for pair in first.keys() & second.keys())
    return product / math.sqrt(sum(n * n for n in first.values()) * sum(n * n for n in second.values()))


def _pairs(text: str, language: str) -> list[tuple[str, str]]:
    nodes = [node for node in syntax_trees.parse(text, language).nodes if node.named]
    return [(_class(node.kind), _class(child.kind)) for node in nodes for child in node.children if child.named]


def _class(kind: str) -> str:
    return next((name for name, pattern in _CLASSES.items() if pattern.search(kind)), "other")


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Returns linear CKA of two representations (n, d) and (n, e) of the same n inputs; 0 if one is constant.

    ||Y' X||_F^2 / (||X' X||_F ||Y' Y||_F), of columns with mean 0.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    scale = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(y.T @ x) ** 2) / scale if scale else 0.0


@torch.no_grad()
def outputs(base: Any, tokenizer: Any, fusion_run: str) -> dict[str, float]:
    """Returns linear CKA between what each source of a finished fusion and the target's own adapter add, by source.

    Both read the hidden states of the finished fusion on training rows of the target; a model's layers are averaged.

    Args:
        base: a model without adapters; it has none afterwards.
    """
    p = FusionParams.model_validate(finished_run(fusion_run).params)
    data = DataRun(p.data)
    model: Any = load_trained(base, fusion_run, training_phases(p)[-1].phase.key)
    model.eval()
    added: dict[tuple[int, str], list[np.ndarray]] = {}  # by site and member, (tokens, d)

    def hook(at: int, layer: Any, names: Sequence[str], real: dict[str, torch.Tensor]) -> Any:
        def keep(module: Any, inputs: tuple) -> None:
            for name in names:
                of_member = layer.adapters[name](inputs[0])[real["attention_mask"].bool()]
                added.setdefault((at, name), []).append(of_member.double().cpu().numpy())

        return keep

    real: dict[str, torch.Tensor] = {}
    sites = active_fusions(model)
    hooks = [
        layer.fusions[name].register_forward_pre_hook(hook(at, layer, layer.members[name], real))
        for at, (layer, name) in enumerate(sites)
    ]
    sequences = encode_rows(data.rows(p.target, "train")[:OUTPUT_ROWS], tokenizer, *data.limits)
    collate, device = Collator(tokenizer.pad_token_id or 0), next(model.parameters()).device
    batch = {name: value.to(device) for name, value in collate(list(sequences)).items()}
    real["attention_mask"] = batch["attention_mask"]
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for one in hooks:
        one.remove()
    model.unload()
    whole = {key: np.concatenate(parts) for key, parts in added.items()}
    sources = [name for name in p.members or {} if name != p.target]
    return {
        name: float(np.mean([cka(whole[at, name], whole[at, p.target]) for at in range(len(sites))]))
        for name in sources
    }

"""Similarity of sentences by an embedding model that the reader brings: a directory, or a package that holds one.

Nothing is downloaded, and no code that comes with the model is run: it needs a `config.json`, a tokenizer and weights
as safetensors. The vector of a text is the mean of the last layer over its tokens, whatever pooling the model was
published with.

    embedder = Embedder("models/minilm")
    embedder.score(["Rename k to n"], ["Call k n"]).value
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from studykit.errors import UserError, show
from studykit.evaluation.scores import Score
from studykit.runs import files

BATCH = 64  # texts
MOST_TOKENS = 256  # of a text
# What libraries raise for a model that is damaged or makes no vectors.
CANNOT = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, SafetensorError)


def find_model(word: str) -> Path:
    """Returns the directory of a model: `word` is one, or an installed package that contains one.

    Raises: UserError if there is neither.
    """
    place = files.project_path(word)
    places = [place] if place.is_dir() else []
    if not places and word.isidentifier() and (spec := find_spec(word)):
        places = [Path(location) for location in spec.submodule_search_locations or ()]
    for folder in places:
        for config in sorted(folder.rglob("config.json"), key=lambda file: (len(file.parts), file)):
            if any(config.parent.glob("*.safetensors")):
                return config.parent
    raise UserError(
        f"evaluate.embedding is {show(word)}; accepted are a directory with a transformers model (config.json, a "
        "tokenizer, weights as safetensors) and the name of an installed package that contains such a directory."
    )


class Embedder:
    """An embedding model in memory; it is loaded when the first text comes."""

    def __init__(self, word: str):
        self.folder = find_model(word)
        self.vectors: dict[str, np.ndarray] = {}

    @cached_property
    def digest(self) -> str:
        """Returns the beginning of the SHA-256 of the weights, by which two models are told apart."""
        weights = sorted(self.folder.glob("*.safetensors"))
        return "+".join(str(files.sha256(file))[:12] for file in weights)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        doing = "be loaded"
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            ).eval()
            doing = "make a vector of a text"
            _unit_vectors(model, tokenizer, ["a"])  # some tokenizers cannot pad, some models want a decoder's text
        except CANNOT as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"The model in {self.folder} (evaluate.embedding) cannot {doing}: {reason}") from error
        return model, tokenizer

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Returns unit vectors (n, d) of n texts; a text without any token has the vector 0."""
        model, tokenizer = self._loaded
        new = sorted(set(texts) - self.vectors.keys(), key=lambda text: (len(text), text))
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            self.vectors |= dict(zip(part, _unit_vectors(model, tokenizer, part), strict=True))
        return np.stack([self.vectors[text] for text in texts])

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> Score:
        """Returns the mean cosine of n pairs, times 100."""
        cosines = 100 * np.sum(self.embed(predictions) * self.embed(references), axis=1)
        return Score(
            label="Sentence embedding, cosine",
            value=float(cosines.mean()),
            signature=f"embedding|tok:model|pool:mean|level:sentence|model:{self.digest}|version:1|n:{len(cosines)}",
            per_example=cosines.tolist(),
            n=len(cosines),
            empty=sum(not text.strip() for text in predictions),
        )


@torch.inference_mode()
def _unit_vectors(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Returns the normalised means (B, d) of the last layer over the tokens of B texts."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
    if not batch["input_ids"].numel():
        return np.zeros((len(texts), model.config.hidden_size))
    states = model(**batch).last_hidden_state  # (B, T, d)
    mask = batch["attention_mask"].unsqueeze(-1)  # (B, T, 1)
    mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)  # (B, d)
    return torch.nn.functional.normalize(mean, dim=-1).double().numpy()

"""Configurations of the tuner: an adapter, a composition of several, and a fusion folded for inference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig

from studykit.tuners.bottleneck import ACTIVATIONS, INITS
from studykit.tuners.fusion import SCORES
from studykit.tuners.placement import TARGETS, targets_in

PEFT_TYPE = "ADAPTER_COMPOSITION"
KINDS = ("attention", "average", "scalar_mix", "mhr")

# Names of the tuner's own submodules: an adapter of such a name could not be found in a state dict.
RESERVED = {
    *("adapters", "fusions", "composition", "down", "up", "query", "key", "value", "weight", "bias"),
    *("input_projection", "output_projection", "W", "W_left", "W_right", "phm_rule", "phm_rule_left"),
    *("phm_rule_right", "layers", "model", "base_model"),
}


def check_name(name: str) -> str:
    """Returns a name that an adapter may have; raises ValueError for one that it may not.

    A name becomes part of tensor keys and of directories, so `.`, `,` and `/` are refused.
    """
    if not name or set(name) & set("./,\\") or name in RESERVED:
        raise ValueError(
            f"{name!r} cannot be an adapter's name: it must not contain '.', ',' or '/', nor be one of "
            f"{sorted(RESERVED)}."
        )
    return name


def require_range(config: PeftConfig, field_name: str, in_range: bool, accepted: str) -> None:
    """Raises ValueError, with the field, its value and what is accepted, unless `in_range`."""
    if not in_range:
        raise ValueError(f"{field_name}={getattr(config, field_name)!r} is out of range; it must be {accepted}.")


@dataclass
class BottleneckConfig(PeftConfig):
    """An adapter at one placement in every decoder layer. The defaults are those of `seq_bn`, Pfeiffer's adapter."""

    placement: str = field(
        default="output",
        metadata={"help": f"Where the adapter sits in a layer: one of {list(TARGETS)}, see tuners/placement.py."},
    )
    reduction_factor: float = field(
        default=16, metadata={"help": "The hidden size divided by the width r of the bottleneck, at least 1."}
    )
    rank: int | None = field(default=None, metadata={"help": "The width r itself, instead of reduction_factor."})
    activation: str = field(default="relu", metadata={"help": f"The non-linearity: one of {sorted(ACTIVATIONS)}."})
    scaling: float = field(default=1.0, metadata={"help": "The factor on the adapter's output."})
    dropout: float = field(default=0.0, metadata={"help": "The dropout after the scaling, in [0, 1)."})
    biased: bool = field(default=True, metadata={"help": "Whether the projections have biases."})
    init: str = field(
        default="bert", metadata={"help": f"How dense projections start: one of {list(INITS)}; PHM has its own start."}
    )
    phm_dim: int | None = field(
        default=None, metadata={"help": "The number of Kronecker terms (Compacter: 4); None: dense projections."}
    )
    phm_rank: int | None = field(default=1, metadata={"help": "The rank of each W_i; None: full."})
    phm_shared_rule: bool = field(default=True, metadata={"help": "Whether all layers, down and up, share one rule A."})
    phm_rule_rank: int | None = field(default=None, metadata={"help": "The rank of the rule A; None: full."})
    layers_to_transform: list[int] | None = field(
        default=None, metadata={"help": "The indices of the decoder layers that get the adapter; None: all layers."}
    )
    target_modules: str | None = field(
        default=None, metadata={"help": "A regular expression of the sites' modules; None: all of the placement."}
    )

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        for name, known in (("placement", TARGETS), ("activation", ACTIVATIONS), ("init", INITS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; accepted are {sorted(known)}.")
        require_range(self, "reduction_factor", self.reduction_factor >= 1, "at least 1")
        require_range(self, "rank", self.rank is None or self.rank >= 1, "at least 1")
        require_range(self, "dropout", 0 <= self.dropout < 1, "in [0, 1)")
        for name in ("phm_dim", "phm_rank", "phm_rule_rank"):
            require_range(self, name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        layers = self.layers_to_transform
        is_list = layers is None or (bool(layers) and all(type(i) is int and i >= 0 for i in layers))
        require_range(self, "layers_to_transform", is_list, "a list of indices from 0 on")
        if self.phm_dim is not None and not self.biased:
            raise ValueError("biased=False cannot be combined with phm_dim: PHM projections have biases.")
        if self.target_modules is None:
            self.target_modules = targets_in(self.placement, layers)


# The adapters of the literature by one word: the fields in which they differ from `seq_bn`.
PRESETS: dict[str, dict] = {
    "bottleneck": {},
    "houlsby": {"placement": "houlsby", "activation": "swish"},
    "parallel": {"placement": "parallel", "reduction_factor": 2, "scaling": 4.0, "init": "mam_adapter"},
    "compacter": {"placement": "houlsby", "activation": "gelu", "reduction_factor": 32, "phm_dim": 4},
    "compacterpp": {"activation": "gelu", "reduction_factor": 32, "phm_dim": 4},
}


@dataclass
class FusionConfig(PeftConfig):
    """A composition of adapters that the model already holds, at each of their sites.

    `attention` is AdapterFusion; `average` adds the members' mean and learns nothing; `scalar_mix` learns one number
    per member and site, through a softmax; `mhr` (multi-head routing) learns one per member, site and block of the
    input of linear members.
    """

    members: list[str] = field(default_factory=list, metadata={"help": "The names of the fused adapters, in order."})
    kind: str = field(default="attention", metadata={"help": f"How they are composed: one of {list(KINDS)}."})
    value: bool = field(
        default=True, metadata={"help": "Whether there is a value matrix; without it the fusion is 'static'."}
    )
    rank: int | str | None = field(
        default=None,
        metadata={
            "help": "The rank of query, key, and value minus identity; None: full; 'match': the rank, found when the "
            "fusion is made and kept here, at which it has about as many parameters as its first member."
        },
    )
    temperature: float = field(default=1.0, metadata={"help": "A constant that divides the scores, above 0."})
    dropout: float = field(default=0.0, metadata={"help": "The dropout of the scores in training, in [0, 1)."})
    scores: str = field(
        default="dot",
        metadata={"help": f"How queries and keys are compared: one of {list(SCORES)}, see tuners/fusion.py."},
    )
    heads: int | None = field(
        default=None,
        metadata={"help": "The number of blocks into which `mhr` cuts the input; others: None."},
    )
    target_modules: str | None = field(default=None, metadata={"help": "Filled in: those of the members."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if not self.members:
            raise ValueError("A FusionConfig needs members: the names of the adapters to fuse, in order.")
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"members={self.members} names an adapter twice; each may be fused once.")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown; accepted are {list(KINDS)}.")
        is_rank = isinstance(self.rank, int) and self.rank >= 1
        require_range(self, "rank", self.rank in (None, "match") or is_rank, "at least 1, or 'match'")
        if self.scores not in SCORES:
            raise ValueError(f"scores={self.scores!r} is unknown; accepted are {list(SCORES)}.")
        attentive = (self.value, self.rank, self.temperature, self.dropout, self.scores)
        if self.kind != "attention" and attentive != (True, None, 1.0, 0.0, "dot"):
            raise ValueError(
                f"kind={self.kind!r} has no attention; value, rank, temperature, dropout and scores must keep their "
                "defaults."
            )
        if self.kind == "mhr":
            require_range(self, "heads", type(self.heads) is int and self.heads >= 1, "at least 1")
        elif self.heads is not None:
            raise ValueError(f"heads={self.heads!r} is only for kind='mhr'; leave it out.")
        require_range(self, "temperature", self.temperature > 0, "above 0")
        require_range(self, "dropout", 0 <= self.dropout < 1, "in [0, 1)")


@dataclass
class FoldedConfig(PeftConfig):
    """A fusion and its members in one, for inference, as `save_folded` writes it; it needs no other adapter."""

    folded: list[str] = field(default_factory=list, metadata={"help": "The names of the members, in order."})
    widths: list[int] = field(default_factory=list, metadata={"help": "The width r of each member."})
    activations: list[str] = field(default_factory=list, metadata={"help": "The activation of each member."})
    placement: str = field(default="output", metadata={"help": f"The members' placement: one of {list(TARGETS)}."})
    temperature: float = field(default=1.0, metadata={"help": "A constant that divides the scores."})
    query_norm: bool = field(default=False, metadata={"help": "Whether the query's input is divided by its norm."})
    target_modules: str | None = field(default=None, metadata={"help": "A regular expression of the sites' modules."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE


class CompositionConfig(PeftConfig):
    """The one configuration class that PEFT allows per type of tuner; a call creates one of those above."""

    def __new__(cls, **fields) -> Any:
        kind = FusionConfig if "members" in fields else FoldedConfig if "folded" in fields else BottleneckConfig
        return kind(**fields)

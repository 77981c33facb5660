"""Configurations of the tuner: an adapter, a composition of several, and a fusion folded for inference."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from studykit.tuners.bottleneck import ACTIVATIONS, INITS
from studykit.tuners.placement import TARGETS

PEFT_TYPE = "ADAPTER_COMPOSITION"
KINDS = ("attention", "average", "scalar_mix")

# Names of our own submodules: an adapter called so could not be told from them in a state dict.
RESERVED = {
    *("adapters", "fusions", "composition", "down", "up", "query", "key", "value", "read", "write", "weight", "bias"),
    *("W", "W_left", "W_right", "phm_rule", "phm_rule_left", "phm_rule_right", "layers", "model", "base_model"),
}


def check_name(name: str) -> str:
    """An adapter's name becomes part of tensor keys and of directories, so `.`, `,` and `/` are refused."""
    if not name or set(name) & set("./,\\") or name in RESERVED:
        raise ValueError(
            f"{name!r} cannot be an adapter's name: it must be without '.', ',', '/' and none of {sorted(RESERVED)}."
        )
    return name


def require(config: PeftConfig, name: str, accepted: bool, what: str) -> None:
    if not accepted:
        raise ValueError(f"{name}={getattr(config, name)!r} is out of range; it must be {what}.")


@dataclass
class BottleneckConfig(PeftConfig):
    """An adapter at one place of every decoder layer. Field defaults are those of `seq_bn`, Pfeiffer's adapter."""

    place: str = field(default="output", metadata={"help": f"one of {list(TARGETS)}, see tuners/places.py"})
    reduction_factor: float = field(default=16, metadata={"help": "d / r, at least 1"})
    rank: int | None = field(default=None, metadata={"help": "r itself, instead of reduction_factor"})
    activation: str = field(default="relu", metadata={"help": f"one of {sorted(ACTIVATIONS)}"})
    scaling: float = field(default=1.0, metadata={"help": "factor on the adapter's output"})
    dropout: float = field(default=0.0, metadata={"help": "after the scaling, in [0, 1)"})
    biased: bool = field(default=True, metadata={"help": "whether the projections have biases"})
    init: str = field(default="bert", metadata={"help": f"one of {list(INITS)}; PHM projections have their own"})
    phm_dim: int | None = field(default=None, metadata={"help": "n Kronecker terms (Compacter: 4); None: dense"})
    phm_rank: int | None = field(default=1, metadata={"help": "rank of W_i; None: full W"})
    phm_shared_rule: bool = field(default=True, metadata={"help": "one rule A for all layers, down and up"})
    phm_rule_rank: int | None = field(default=None, metadata={"help": "rank of the rule; None: full A"})
    target_modules: str | None = field(default=None, metadata={"help": "regular expression of the sites; None: all"})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        for name, known in (("place", TARGETS), ("activation", ACTIVATIONS), ("init", INITS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; accepted are {sorted(known)}.")
        require(self, "reduction_factor", self.reduction_factor >= 1, "at least 1")
        require(self, "rank", self.rank is None or self.rank >= 1, "at least 1")
        require(self, "dropout", 0 <= self.dropout < 1, "in [0, 1)")
        if self.phm_dim is not None and not self.biased:
            raise ValueError("biased=False does not go with phm_dim: PHM projections have biases.")
        if self.target_modules is None:
            self.target_modules = TARGETS[self.place]


# Adapters of the literature by one word: what differs from `seq_bn`.
PRESETS: dict[str, dict] = {
    "bottleneck": {},
    "houlsby": {"place": "houlsby", "activation": "swish"},
    "parallel": {"place": "parallel", "reduction_factor": 2, "scaling": 4.0, "init": "mam_adapter"},
    "compacter": {"place": "houlsby", "activation": "gelu", "reduction_factor": 32, "phm_dim": 4},
    "compacterpp": {"activation": "gelu", "reduction_factor": 32, "phm_dim": 4},
}


@dataclass
class FusionConfig(PeftConfig):
    """A learned composition of adapters that the model already holds, at every site of theirs.

    `attention` is AdapterFusion; `average` adds the members' mean and learns nothing; `scalar_mix` learns one number per
    member and site, through a softmax.
    """

    members: list[str] = field(default_factory=list, metadata={"help": "names of the fused adapters, in order"})
    kind: str = field(default="attention", metadata={"help": f"one of {list(KINDS)}"})
    value: bool = field(default=True, metadata={"help": "False: no value matrix (the reference's 'static')"})
    rank: int | None = field(default=None, metadata={"help": "of query, key, and value minus identity; None: full"})
    temperature: float = field(default=1.0, metadata={"help": "divides the scores; a constant"})
    dropout: float = field(default=0.0, metadata={"help": "of the scores, in training, in [0, 1)"})
    target_modules: str | None = field(default=None, metadata={"help": "None: the members' own"})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if not self.members:
            raise ValueError("A FusionConfig needs members: the names of the adapters to fuse, in order.")
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"members={self.members} names an adapter twice; each may be fused once.")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown; accepted are {list(KINDS)}.")
        require(self, "rank", self.rank is None or self.rank >= 1, "at least 1")
        if self.kind != "attention" and (self.rank or not self.value or self.temperature != 1.0 or self.dropout):
            raise ValueError(f"kind={self.kind!r} has no attention: value, rank, temperature and dropout say nothing.")
        require(self, "temperature", self.temperature > 0, "above 0")
        require(self, "dropout", 0 <= self.dropout < 1, "in [0, 1)")


@dataclass
class FoldedConfig(PeftConfig):
    """A fusion and its members in one, for inference: what `save_folded` writes; it needs no other adapter."""

    folded: list[str] = field(default_factory=list, metadata={"help": "names of the members, in order"})
    widths: list[int] = field(default_factory=list, metadata={"help": "r of each member"})
    activations: list[str] = field(default_factory=list, metadata={"help": "of each member"})
    place: str = field(default="output", metadata={"help": f"one of {list(TARGETS)}"})
    temperature: float = field(default=1.0, metadata={"help": "divides the scores"})
    target_modules: str | None = field(default=None, metadata={"help": "regular expression of the sites"})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE


class CompositionConfig(PeftConfig):
    """What PEFT knows of the tuner, which allows one config class per PEFT type: it reads as one of those above."""

    def __new__(cls, **fields) -> BottleneckConfig | FusionConfig | FoldedConfig:
        kind = FusionConfig if "members" in fields else FoldedConfig if "folded" in fields else BottleneckConfig
        return kind(**fields)

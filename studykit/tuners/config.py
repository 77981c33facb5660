"""Configurations of the tuner: a bottleneck adapter, and a fusion of several."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from studykit.tuners.bottleneck import ACTIVATIONS

PEFT_TYPE = "ADAPTER_COMPOSITION"

# Every decoder layer of the Llama-like families; PEFT matches a string as a full regular expression.
DECODER_LAYERS = r"(.*\.)?layers\.\d+"

# Names of our own submodules: an adapter called so could not be told from them in a state dict.
RESERVED = {"adapters", "fusions", "down", "up", "query", "key", "value", "layers", "model", "base_model"}


def check_name(name: str) -> str:
    """An adapter's name becomes part of tensor keys and of directories, so `.`, `,` and `/` are refused."""
    if not name or set(name) & set("./,\\") or name in RESERVED:
        raise ValueError(
            f"{name!r} cannot be an adapter's name: it must be without '.', ',', '/' and none of {sorted(RESERVED)}."
        )
    return name


@dataclass
class BottleneckConfig(PeftConfig):
    """A bottleneck adapter after every decoder layer (Pfeiffer's place). Field defaults are those of `seq_bn`."""

    reduction_factor: float = field(default=16, metadata={"help": "d / r, at least 1"})
    activation: str = field(default="relu", metadata={"help": f"one of {sorted(ACTIVATIONS)}"})
    scaling: float = field(default=1.0, metadata={"help": "factor on the adapter's output"})
    dropout: float = field(default=0.0, metadata={"help": "after the scaling, in [0, 1)"})
    phm_dim: int | None = field(default=None, metadata={"help": "n Kronecker terms (Compacter++: 4); None: dense"})
    phm_rank: int | None = field(default=1, metadata={"help": "rank of W_i; None: full W"})
    phm_shared_rule: bool = field(default=True, metadata={"help": "one rule A for all layers, down and up"})
    phm_rule_rank: int | None = field(default=None, metadata={"help": "rank of the rule; None: full A"})
    target_modules: str = field(default=DECODER_LAYERS, metadata={"help": "regular expression of the decoder layers"})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is unknown; accepted are {sorted(ACTIVATIONS)}.")
        if self.reduction_factor < 1:
            raise ValueError(f"reduction_factor={self.reduction_factor} is out of range; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is out of range; it must be in [0, 1).")


@dataclass
class FusionConfig(PeftConfig):
    """A learned attention over the outputs of adapters that the model already holds."""

    members: list[str] = field(default_factory=list, metadata={"help": "names of the fused adapters, in order"})
    value: bool = field(default=True, metadata={"help": "False: no value matrix (the reference's 'static')"})
    target_modules: str = field(default=DECODER_LAYERS, metadata={"help": "regular expression of the decoder layers"})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if not self.members:
            raise ValueError("A FusionConfig needs members: the names of the adapters to fuse, in order.")
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"members={self.members} names an adapter twice; each may be fused once.")


class CompositionConfig(PeftConfig):
    """What PEFT knows of the tuner, which allows one config class per PEFT type: it reads as one of the two above."""

    def __new__(cls, **fields) -> BottleneckConfig | FusionConfig:
        return (FusionConfig if "members" in fields else BottleneckConfig)(**fields)

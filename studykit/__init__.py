"""studykit: an exact, fair and fast study kit for AdvFusion on code language models."""

import importlib
import logging
import sys
import warnings

# At its import bitsandbytes warns, in every notebook, that an optional kernel for CPUs is absent; it works without.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# PEFT asks transformers for a property that has a new name.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)

__version__ = "0.1.0"


def __getattr__(name: str):
    """`studykit.explore`, imported when it is first used, since matplotlib takes a second; and by name, so that
    `code_digest` does not count the explorer among the code of every notebook."""
    if name == "explore":
        return importlib.import_module("studykit.report.explorer").explore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> int:
    """Runs the command `studykit`, which needs the packages of `studykit[all]`; the tuner alone needs few."""
    try:
        cli = importlib.import_module("studykit.cli")
    except ModuleNotFoundError as missing:
        sys.exit(
            f"studykit: the package {missing.name} is not installed; install all with pip install 'studykit[all]'."
        )
    return cli.main()

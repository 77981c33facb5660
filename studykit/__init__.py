"""studykit: an exact, fair and fast study kit for AdvFusion on code language models."""

__version__ = "0.1.0"

"""The embedded default: small parallel programs with descriptions, tests and edits, in six languages.

`programs(n, seed, split, level)` draws unique programs from a grammar over one typed tree; each `Program` renders
itself as code and as words, knows its tests, and makes edits. Splits are disjoint by structure, not by text. Nothing here
imports torch.
"""

from studykit.data.polyglot.canonical import SPLITS
from studykit.data.polyglot.program import Program
from studykit.data.polyglot.renderer import function_name
from studykit.data.polyglot.renderers import LANGUAGES
from studykit.data.polyglot.sampler import LEVELS, programs

__all__ = ["LANGUAGES", "LEVELS", "SPLITS", "Program", "function_name", "programs"]

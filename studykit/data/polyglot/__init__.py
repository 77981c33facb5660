"""The built-in data: small parallel programs with descriptions, tests and commits, in six languages.

`programs(n, seed, split)` draws unique programs from families over one typed tree. Each `PolyglotProgram` renders
itself as code and as words and knows its tests; `commits.commit` changes it. Splits are disjoint by structure, not by
text. Nothing here imports torch.

To read, in this order: `syntax` (the typed tree and its values), `families` and `sampler` (how programs are drawn),
`canonical` (structures and splits), `program`, `describe` (words), `renderer` and `renderers` (code), `commits`, `kin`
(languages made from Lua).
"""

from studykit.data.polyglot.canonical import SPLITS
from studykit.data.polyglot.program import PolyglotProgram
from studykit.data.polyglot.renderer import function_name
from studykit.data.polyglot.renderers import LANGUAGES
from studykit.data.polyglot.sampler import programs

__all__ = ["LANGUAGES", "SPLITS", "PolyglotProgram", "function_name", "programs"]

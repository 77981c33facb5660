"""The end of a command: its errors are sentences on the standard error, and its exit code tells them apart."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from studykit.errors import UserError, printable

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}  # no space, or no right to write


def guarded(function: Callable[..., int | None]) -> Callable[..., int]:
    """Returns a command that gives the exit code of `function`, and for an error one sentence and a code.

    The code is 2 for a mistake of the user's, 1 for a file that cannot be written, and 141 where whoever read the
    output, such as `head`, has ended. Other errors are raised.
    """

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> int:
        try:
            code = function(*args, **options)
            sys.stdout.flush()
            return code or 0
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except UserError as error:
            print(f"studykit: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            file = printable(str(error.filename or "a file of the project"))
            print(
                f"studykit: {file} cannot be written ({error.strerror}); correct that and give the same command again.",
                file=sys.stderr,
            )
            return 1

    return command

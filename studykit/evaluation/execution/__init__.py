"""Model-written programs are built and run where they can do no harm.

To read, in this order: `execute` (programs in, verdicts out), `programs` (completion and tests as one program),
`runtimes` (compilers and interpreters), `sandbox` and `isolation` (levels of isolation), `runner` (the process inside),
`output` (two outputs compared), `doctor` (a check of this machine).
"""

"""Model-written programs are built and run where they can do no harm, and judged where they cannot reach the judge.

Used by notebook 04. It may import `data`, `study` and `errors`. Read in this order: `execute` (programs in, results
out), `executable` (a program and what shows that it is right), `programs` (one out of a completion and a check),
`calls`, `interpreted`, `compiled`, `java` and `hardening` (the texts around completions), `output` (two outputs
compared), `runtimes` (compilers and interpreters), `sandbox` (levels of isolation), `mounts` (visible files), `runner`
(the handle on one sandbox), then what runs inside: `supervisor`, `keeper`, `confinement`, `seccomp`, `usage`. `doctor`
checks this machine.
"""

"""The table of hostile programs at the end of a test run, and the isolation levels of this machine."""

from __future__ import annotations

from collections import Counter


def pytest_terminal_summary(terminalreporter):
    """Prints how many hostile programs were tried, contained and forged, by kind and language.

    A test of one program says so by `record_property("hostile", (kind, language))` before it asserts.
    """
    counts = {
        outcome: Counter(
            value for report in terminalreporter.getreports(outcome) for name, value in report.user_properties
            if name == "hostile" and report.when == "call"
        )
        for outcome in ("passed", "failed")
    }  # fmt: skip
    tried = counts["passed"] + counts["failed"]
    if not tried:
        return
    terminalreporter.section("hostile programs", sep="-")
    terminalreporter.write_line(f"{'kind':36} {'language':10} {'tried':>6} {'contained':>10} {'forged':>7}")
    for kind, language in [*sorted(tried), ("all", "")]:
        one = [(kind, language)] if language else [*tried]
        forged = sum(counts["failed"][key] for key in one)
        total = sum(tried[key] for key in one)
        terminalreporter.write_line(f"{kind:36} {language:10} {total:6} {total - forged:10} {forged:7}")

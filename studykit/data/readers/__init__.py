"""One module for each published data set; `registry` tells them apart and calls them.

They are `codesearchnet`, `commitpackft`, `humaneval` (with HumanEval-X and MultiPL-E), `nichetrans` and `xcodeeval`.
"""

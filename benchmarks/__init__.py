"""How fast `dm` is, as ratios against the tools that a user knows, both measured in turns in one run.

``python -m benchmarks [ROW…]`` (or ``make bench ROW=…``) measures rows and writes them into RESULTS.md. One file of
``rows`` holds the rows of one kind of work.
"""

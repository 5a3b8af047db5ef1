"""Evaluation of a network on a data set by the data set's own protocol, as exact numbers that say how they were made.

From a network to a result: `predictions` runs it; `evaluate` has the result and a row for each protocol (`coco` with
`suppression` for AP, `mpii` for PCKh, `pck` for LSP); `diagnosis` classes the errors; `provenance` says how the result
was made. `compare` explains the gap between two results, `upper_bound` is what a network without error would reach.
"""

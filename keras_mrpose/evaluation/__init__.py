"""How good a network is on a data set, by the data set's own protocol, as exact numbers that say how they were made.

From a network to a result: `predictions` runs it, `protocols` has a row for each protocol (`coco` with `selection` for
AP, `mpii` for PCKh, `pck` for LSP), `diagnosis` says what went wrong, `stamp` how it was made; `result` puts all of it
together. `compare` explains the gap between two results, `ceiling` tells what a perfect network would reach.
"""

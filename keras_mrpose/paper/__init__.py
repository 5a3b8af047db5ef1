"""The paper's tables, and the experiments that reproduce them: a row each."""

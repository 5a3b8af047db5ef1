"""The benchmarks run: `--quick` says nothing of speed, but that every part still works.

`memory` is left out: its forty epochs take minutes.
"""

import subprocess
import sys

import pytest
from commands import ENVIRONMENT, ROOT


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pipeline", "networks", "evaluation", "exports", "prediction", "peers"])
def test_quick(what, tmp_path):
    networks = ["mrfeanet1"]
    if what == "peers":
        pytest.importorskip("torch", reason="peers measures PyTorch, too")
        networks = ["simplebaseline", "mrfeanet2"]
    numbers = tmp_path / "numbers.json"
    command = [sys.executable, "benchmarks/run.py", what, "--quick", "--json", str(numbers), "--networks", *networks]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert numbers.stat().st_size > 100

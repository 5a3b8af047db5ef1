"""Measure input pipeline, networks, COCO evaluation and memory on this machine: `python benchmarks/run.py --help`.

Run by hand on a quiet machine; README.md beside this file says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

NETWORKS = ("simplebaseline", "mrheatnet1", "mrheatnet2", "mrfeanet1", "mrfeanet2")
QUICK = {
    "backbone": "tiny_v1b",
    "input_size": (64, 64),
    "batch_size": 4,
    "repetitions": 3,
    "steps": 1,
    "gemm_side": 512,
    "people": 200,
    "boxes": 2000,
}
FULL = {
    "backbone": "resnet50",
    "input_size": (256, 192),
    "batch_size": 16,
    "repetitions": 5,
    "steps": 2,
    "gemm_side": 2048,
    "people": 6352,
    "boxes": 104_125,
}
MEMORY_PEOPLE = 150_000  # COCO's train2017


def parser() -> argparse.ArgumentParser:
    """All options."""
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = ("all", "pipeline", "networks", "evaluation", "exports", "phones", "prediction", "peers", "memory")
    top.add_argument("what", nargs="?", choices=what, default="all", help="all (default): the first three")
    top.add_argument(
        "--quick", action="store_true", help="seconds: a tiny backbone, small input; checks that all works"
    )
    top.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers and the machine's facts here")
    top.add_argument(
        "--data", metavar="DIR", help="pipeline, peers: LSP or COCO-format folder (default: made photographs)"
    )
    top.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME", help=", ".join(NETWORKS)
    )
    top.add_argument("--backbone", help=f"default {FULL['backbone']}")
    top.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="default 256 192")
    top.add_argument("--batch-size", type=int, metavar="N", help=f"default {FULL['batch_size']}")
    top.add_argument("--precision", nargs="+", choices=("float32", "mixed_bfloat16"), default=["float32"])
    top.add_argument(
        "--repetitions", type=int, metavar="N", help=f"measurements of each number, default {FULL['repetitions']}"
    )
    top.add_argument("--steps", type=int, metavar="N", help=f"batches in one measurement, default {FULL['steps']}")
    top.add_argument(
        "--gemm-side", type=int, metavar="N", help=f"of the peak's matrices, default {FULL['gemm_side']} (GPU: 8192)"
    )
    top.add_argument("--people", type=int, metavar="N", help=f"evaluation: {FULL['people']}, memory: {MEMORY_PEOPLE}")
    top.add_argument("--boxes", type=int, metavar="N", help=f"of a detector, for the NMS, default {FULL['boxes']}")
    top.add_argument("--threads", type=int, default=0, metavar="N", help="TensorFlow's threads; 0 is one for each core")
    top.add_argument("--runs", nargs="+", metavar="RUN", help="exports: of these trained networks; with --data, judged")
    top.add_argument("--peers", nargs="+", metavar="FILE", help="phones: others' .tflite files to measure beside ours")
    top.add_argument("--detector", metavar="FILE", help="prediction: finds the people of the video")
    top.add_argument("--jit", action="store_true", help="compile the steps of networks and codecs with XLA")
    top.add_argument("--compile", action="store_true", help="peers: PyTorch predicts by torch.compile, too (minutes)")
    return top


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 0, or 2 for a user's mistake."""
    arguments = parser().parse_args(argv)
    defaults = QUICK if arguments.quick else FULL | {"people": MEMORY_PEOPLE} if arguments.what == "memory" else FULL
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ("batch_size", "repetitions", "steps", "gemm_side", "people", "boxes"):
        if getattr(arguments, name) < 1:
            parser().error(f"--{name.replace('_', '-')} must be at least 1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.append(
        str(Path(__file__).resolve().parents[1] / "tests" / "helpers")
    )  # plain_loops: the evaluation's slow reference
    # imported here, so that --help answers at once
    import measure

    from keras_mrpose import InputError

    try:
        if arguments.what == "peers":
            import peers

            report = peers.measure_peers(arguments)
        else:
            report = measure.everything(arguments)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")
            print(f"wrote {arguments.json}")
    except (InputError, OSError, ModuleNotFoundError) as mistake:  # peers takes PyTorch
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

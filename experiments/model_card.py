"""The tables of the model card, made from result files: `python experiments/model_card.py FOLDER > FOLDER.md`.

FOLDER has `mrpose evaluate` results (`NAME.json`, of `--bootstrap`), `mrpose calibrate --check --json` reports
(`confidence-NAME.json`), the training's `history.json`, and an export's `report.json`; what is missing is left out.
"""

import json
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Print them as Markdown."""
    results = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    evaluated = {name: value for name, value in results.items() if {"metric", "numbers", "protocol"} <= set(value)}
    print("| people | metric | value, percent | 95 % interval | people | flip test |\n|---|---|---:|---:|---:|---|")
    for name, result in evaluated.items():
        low, high = result["numbers"].get("interval_95", (None, None))
        interval = "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
        flip = "yes" if result["protocol"]["settings"]["flip_test"] else "no"
        people = result["protocol"]["data"]["people"]
        print(f"| {name} | {result['metric']} | {100 * result['value']:.1f} | {interval} | {people} | {flip} |")
    shares = {name: result["numbers"]["joints"] for name, result in evaluated.items() if "joints" in result["numbers"]}
    for name, joints in shares.items():
        print(f"\n{name}, by joint:\n\n| " + " | ".join(joints) + " |\n" + "|---:" * len(joints) + "|")
        print("| " + " | ".join("-" if share is None else f"{100 * share:.1f}" for share in joints.values()) + " |")
    reports = {name: value for name, value in results.items() if name.startswith("confidence-")}
    if reports:
        print("\nConfidence: expected calibration error, and predicted probability against share of right keypoints\n")
        print("| people | keypoints | error | visible: predicted, right | hidden: predicted, right |")
        print("|---|---:|---:|---:|---:|")
    for name, report in reports.items():
        parts = [report[kind] for kind in ("visible", "hidden")]
        cells = ["-" if part is None else f"{part['confidence']:.2f}, {part['right']:.2f}" for part in parts]
        error = f"{report['error']:.3f}"
        print(f"| {name.removeprefix('confidence-')} | {report['keypoints']} | {error} | {cells[0]} | {cells[1]} |")
    for name, history in results.items():
        if "val_score" in history:
            print(
                f"\nTraining, {name}: after each epoch, percent\n\n| | "
                + " | ".join(str(epoch + 1) for epoch in range(len(history["val_score"])))
                + " |\n|---"
                + "|---:" * len(history["val_score"])
                + "|"
            )
            for key in sorted(key for key in history if key.startswith("val_") and not key.endswith(("loss", "score"))):
                print(f"| {key.removeprefix('val_')} | " + " | ".join(f"{100 * v:.1f}" for v in history[key]) + " |")


def read(path: Path) -> dict:
    """The content of a JSON file."""
    return json.loads(path.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

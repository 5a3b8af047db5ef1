"""`mrpose doctor`: everything that is wrong with a data folder, in one table; 80 columns wide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.cli.data_options import folders, require_writable

if TYPE_CHECKING:
    from rich.console import Console

    from keras_mrpose.doctor.findings import DoctorReport, Finding

SHOWN = 5  # examples of each kind; the file has more


def register_parser(subparsers) -> None:
    """The options of `doctor`."""
    summary = "Find everything that is wrong with a data folder; the exit code is 1 if there are errors."
    sub = subparsers.add_parser("doctor", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument(
        "--data", required=True, action="append", metavar="DIR",
        help="data set folder (LSP, MPII, or COCO format); of several NAME=DIR for each, or a mixture.json",
    )  # fmt: skip
    sub.add_argument("--skeleton", metavar="FILE", help="of a COCO-format folder with joints of its own; checked too")
    sub.add_argument("--no-images", action="store_true", help="annotations only: seconds instead of minutes")
    sub.add_argument("--json", metavar="FILE", help="write the report here, too")


def handle(args) -> int:
    """Examine, print, write; the exit code is 1 if there are errors."""
    from rich.progress import track

    from keras_mrpose import doctor, skeletons

    out = args.json and Path(args.json)
    if out:
        require_writable("--json", out)
    reports = []
    for folder in folders(args.data):
        report = doctor.examine(
            folder,
            images=not args.no_images,
            skeleton=args.skeleton and skeletons.load(args.skeleton),
            watch=lambda looks, count: track(looks, "images", total=count, transient=True),
        )
        _print(report)
        reports.append(report)
    if out:
        content = [report.to_dict() for report in reports]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content[0] if len(content) == 1 else content, indent=1) + "\n")
    return 0 if all(report.clean for report in reports) else 1


def _print(report: DoctorReport) -> None:
    from rich.console import Console

    from keras_mrpose.cli import tables
    from keras_mrpose.doctor.findings import ERROR, WARNING

    console = Console()
    splits = ", ".join(f"{count} people in {name}" for name, count in report.splits.items()) or "no split"
    console.print(f"{report.folder}: {splits}; {report.images} images", soft_wrap=True)
    for name, pairs in report.mirrored.items():
        console.print(f"mirrored in {name}: {pairs}", soft_wrap=True, markup=False, highlight=False)
    for name, reasons in report.left_out.items():
        if reasons:
            said = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            console.print(f"left out in {name}: {said}", soft_wrap=True, highlight=False)
    if report.findings:
        lines = [(one.kind.severity, str(one.count), one.kind.key, one.kind.meaning) for one in report.findings]
        console.print(tables.plain("Findings", ("", "#", "what", "meaning"), lines, folds=3))
    for finding in report.findings:
        if finding.kind.severity in (ERROR, WARNING):
            _print_examples(console, finding, f"{report.folder}/")
    counts = ((report.count(severity), severity) for severity in (ERROR, WARNING))
    said = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in counts if count)
    console.print(f"\n{'clean' if report.clean else 'not clean'}{f': {said}' if said else ''}")


def _print_examples(console: Console, finding: Finding, root: str) -> None:
    shown = f", {SHOWN} of {finding.count}" if finding.count > SHOWN else ""
    console.print(f"\n{finding.kind.key}{shown}:", highlight=False)
    for one in finding.examples[:SHOWN]:
        place = " ".join(part for part in (one.record, one.field) if part != "-")
        line = f"  {one.file}: {place}: {one.value}".replace(root, "")
        console.print(line, soft_wrap=True, markup=False, highlight=False)

"""``fer-fast export``."""

from pathlib import Path

from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError
from fer_fast.serve.export import FORMATS, OPSETS, TOLERANCE, export
from fer_fast.train.folder import STUDY


def run(argv: list[str]) -> int:
    """Export as the arguments say."""
    parser = Parser(
        prog="fer-fast export",
        description="Write a checkpoint as a file that other programs run without this package: uint8 faces of any "
        "size in, named scores out, the preparation of pixels in the graph. It is kept only where it gives what the "
        "checkpoint gives. A model card lies beside it.",
    )
    parser.add_argument("--checkpoint", metavar="F", required=True, help="checkpoint.safetensors or a run's folder")
    parser.add_argument(
        "--out",
        metavar="F2",
        required=True,
        help="a folder, for model.onnx or model.pt2 and README.md; or a file that ends in .onnx or .pt2, whose card "
        "is the same name with .md",
    )
    parser.add_argument("--format", choices=FORMATS, help="default: what --out ends in, else onnx")
    parser.add_argument(
        "--opset", type=int, default=OPSETS[0], metavar="N", help=f"of ONNX, {OPSETS[0]} to {OPSETS[-1]} (%(default)s)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="the cosine a class has to exceed, else a face is unknown (default: the checkpoint's)",
    )
    parser.add_argument("--force", action="store_true", help="replace what an earlier export wrote")
    given = parser.parse_args(argv)
    if (Path(given.checkpoint) / STUDY).exists():
        raise InputError(f"{given.checkpoint} is a study of several runs; export one of them")
    kept = export(
        given.checkpoint, given.out, given.format, opset=given.opset, threshold=given.threshold, force=given.force
    )
    asked, classes = kept.about["input"], len(kept.about["classes"])
    print(f"model: {kept.model} ({kept.model.stat().st_size / 1e6:,.1f} MB)")
    print(f"takes: {asked['name']}, {asked['dtype']} ({', '.join(map(str, asked['shape']))}), {asked['channels']}")
    print(f"gives: {', '.join(kept.about['outputs'])}, of {classes} classes")
    worst = ", ".join(f"{name} {difference:.1e}" for name, difference in kept.differences.items())
    print(f"largest difference from the checkpoint, {kept.faces} faces: {worst} (allowed: {TOLERANCE:.0e})")
    print(f"card: {kept.card}")
    return 0

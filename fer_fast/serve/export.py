"""A checkpoint as a file for other programs, which is kept only where it gives what the checkpoint gives."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from fer_fast.data.align import EYE_DISTANCE, EYE_LINE
from fer_fast.data.dataset import to_channels
from fer_fast.data.faces import load_faces
from fer_fast.errors import InputError
from fer_fast.serve.card import CARD, Card, check_card
from fer_fast.serve.enrolment import check_threshold
from fer_fast.serve.graph import INPUT, Exported
from fer_fast.serve.model import FaceModel
from fer_fast.suggest import one_of
from fer_fast.train.evaluation import load_trained, predict
from fer_fast.train.folder import make_folder
from fer_fast.train.hardware import Hardware
from fer_fast.train.provenance import weights_digest
from fer_fast.written import check_free, write_bytes, write_text

OPSETS = range(18, 26)  # older ones have no antialiasing; newer ones the converter does not know
TOLERANCE = 1e-5  # of float32: sums of a network in another order differ by some 1e-6 of the largest value
BATCHES = (1, 2, 5)
SIZES = {0: "batch", 2: "height", 3: "width"}  # of the input, which may be any
ABOUT = "fer_fast.json"  # in a torch file

Run = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: of its name.
        needs: packages that write it and run it for the comparison, beside torch.
        write: (program, what to know of it by name, opset) -> the file.
        read: the file -> what runs it.
    """

    suffix: str
    needs: tuple[str, ...]
    write: Callable[[ExportedProgram, dict[str, Any], int], bytes]
    read: Callable[[bytes], Run]


class Kept(NamedTuple):
    """What `export` wrote.

    Attributes:
        model, card: the files.
        about: what the first says of itself.
        faces: how many were compared.
        differences: by output, the largest between file and checkpoint, as a share of the largest value where that
            is above one.
    """

    model: Path
    card: Path
    about: dict[str, Any]
    faces: int
    differences: dict[str, float]


def export(
    checkpoint: str | Path,
    out: str | Path,
    form: str | None = None,
    *,
    opset: int = OPSETS[0],
    threshold: float | None = None,
    force: bool = False,
) -> Kept:
    """Write a trained model for other programs, with a model card beside it.

    Args:
        checkpoint: checkpoint.safetensors, or the folder of a run.
        out: a file that ends in .onnx or .pt2, whose card is the same name with .md; else a folder, for model.onnx or
            model.pt2 and README.md, as Hugging Face wants it.
        form: onnx or torch; None: what `out` ends in, else onnx.
        opset: of ONNX, 18 to 25.
        threshold: the cosine that a class has to exceed, else a face is unknown; None: as the checkpoint has it.
        force: replace what an earlier export wrote.

    Raises:
        InputError: bad arguments, a package that is missing, files that are in the way, outputs that differ from the
            checkpoint's by more than `TOLERANCE`. Nothing is written then.
    """
    out = Path(out)
    form = _form(form, out)
    how = FORMATS[form]
    if opset not in OPSETS:
        raise InputError(f"opset is {opset}; allowed: {OPSETS[0]} to {OPSETS[-1]}")
    for package in how.needs:
        _require(package, form)
    file, card = (out, out.with_suffix(".md")) if out.suffix == how.suffix else (out / f"model{how.suffix}", out / CARD)
    check_free(file, force)
    model = _loaded(checkpoint, threshold)
    exported = Exported(model.trained)
    about = describe(model, exported)
    earlier = check_card(card, about, force)
    with _quiet(form):
        data = how.write(traced(exported), about, opset)
        run = how.read(data)
    faces, differences = _compared(model, run, file)
    text = Card(model, about, checkpoint, [*_others(file, earlier), file.name]).text()
    make_folder(file.parent)
    write_bytes(file, data)
    write_text(card, text)
    return Kept(file, card, about, faces, differences)


def describe(model: FaceModel, exported: Exported) -> dict[str, Any]:
    """What a program that runs the file has to know, as JSON values by name."""
    trained = model.trained
    how, state = trained.preparation(), trained.recogniser.state_dict()
    return {
        "classes": list(model.classes),
        "threshold": model.threshold,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", how.channels, "height", "width"],
            "channels": "gray" if how.channels == 1 else "RGB",
            "side": how.size,
        },
        "outputs": list(exported.outputs),
        "preparation": {
            "faces": how.faces,
            "eye_line": EYE_LINE,
            "eye_distance": EYE_DISTANCE,
            "box": "left, top, width, height in pixels",
            "note": "a square cut: eyes level, on a line at eye_line of its height, eye_distance of its width apart",
        },
        "weights": weights_digest({name: state[name] for name in trained.stored}),
        "data": trained.state.get("data", {}),
        "fer_fast": version("fer-fast"),
    }


def traced(exported: Exported) -> ExportedProgram:
    """The graph, for any number of faces of any size."""
    example = torch.zeros(2, exported.channels, exported.side + 2, exported.side + 1, dtype=torch.uint8)
    sizes = {place: Dim(name, min=1) for place, name in SIZES.items()}
    program = torch.export.export(exported, (example,), dynamic_shapes=(sizes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


@contextmanager
def _quiet(form: str) -> Iterator[None]:
    """Keeps back what exporters say on their way, and makes one line of what they raise, which may be anything.

    Raises:
        InputError: the model cannot be exported.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"this model cannot be exported, --format {form}: {line[:300]}") from error
    finally:
        logging.disable(before)


def _form(form: str | None, out: Path) -> str:
    by_suffix = {how.suffix: name for name, how in FORMATS.items()}
    form = one_of(form or by_suffix.get(out.suffix, "onnx"), FORMATS, "format")
    if out.suffix in by_suffix and by_suffix[out.suffix] != form:
        raise InputError(
            f"--out {out} ends in {out.suffix}, and --format is {form}, which ends in {FORMATS[form].suffix}"
        )
    return form


def _require(package: str, form: str) -> None:
    try:
        import_module(package)
    except ImportError:
        raise InputError(
            f'{package} is not installed, which --format {form} needs: pip install "fer-fast[export]"'
        ) from None


def _loaded(checkpoint: str | Path, threshold: float | None) -> FaceModel:
    """The checkpoint in float32 on the CPU, whatever its run computed in."""
    trained = load_trained(checkpoint, "cpu")
    hardware = Hardware(replace(trained.config.hardware, precision="float32"))
    model = FaceModel(replace(trained, hardware=hardware))
    if threshold is not None:
        if not trained.recogniser.classifier.directional:
            raise InputError(
                f"--threshold is of cosines, which the classifier of this checkpoint ("
                f"{trained.recogniser.classifier.name}) does not have"
            )
        check_threshold(threshold)
        model.threshold = threshold
    return model


def _others(file: Path, earlier: bool) -> list[str]:
    """Files of other formats beside this one that an earlier export of the same weights wrote."""
    names = [file.with_suffix(how.suffix).name for how in FORMATS.values() if how.suffix != file.suffix]
    return [name for name in names if earlier and file.with_name(name).is_file()]


def _compared(model: FaceModel, run: Run, file: Path) -> tuple[int, dict[str, float]]:
    """How many faces were compared, and the largest difference of each output.

    Raises:
        InputError: one above `TOLERANCE`, or no number.
    """
    worst: dict[str, float] = {}
    count = 0
    for faces in _trials(model):
        expected = _expected(model, faces)
        # Every pixel four times is the same face: what is done to faces of another size is compared too.
        for given in (faces, faces.repeat_interleave(2, 2).repeat_interleave(2, 3)):
            found, count = run(given), count + len(given)
            for name, value in expected.items():
                scale = value.abs().max().clamp(min=1)
                difference = float(((found[name] - value).abs() / scale).max())
                worst[name] = max(worst.get(name, 0.0), difference) if difference == difference else difference
    for name, difference in worst.items():
        if not difference <= TOLERANCE:
            raise InputError(
                f"{file} is not kept: its {name} differ from the checkpoint's by {difference:.1e}; "
                f"allowed: {TOLERANCE:.0e}"
            )
    return count, worst


def _expected(model: FaceModel, faces: Tensor) -> dict[str, Tensor]:
    trained, augment = model.trained, model.trained.config.augment
    features, scores = predict(trained.recogniser, faces, augment, trained.hardware, crops=augment.crops)
    cosines = model.cosines(features)
    return {"scores": scores, "embeddings": features} | ({} if cosines is None else {"cosines": cosines})


def _trials(model: FaceModel) -> Iterator[Tensor]:
    """Batches of `BATCHES` faces as the model takes them: drawn ones, noise, black and white."""
    how = model.trained.preparation()
    shape = (how.channels, how.size, how.size)
    drawn = load_faces(split="test", image_size=min(max(how.size, 32), 224), samples=3).images
    drawn = torch.nn.functional.interpolate(to_channels(drawn, how.channels).float(), how.size).byte()
    noise = torch.randint(256, (3, *shape), generator=torch.Generator().manual_seed(0)).byte()
    flat = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, *shape)
    faces = torch.cat((drawn, noise, flat))
    yield from faces.split(BATCHES)


def _onnx(program: ExportedProgram, about: dict[str, Any], opset: int) -> bytes:
    import onnx

    made = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=about["outputs"],
        opset_version=opset,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    model = made.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]  # of the trace, with paths of this machine
    del graph.value_info[:]
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in about.items()})
    _name_sizes(graph)
    data = model.SerializeToString()
    onnx.checker.check_model(data, full_check=True)
    return data


def _name_sizes(graph: Any) -> None:
    """Call the free sizes of a graph's inputs and outputs by their names."""
    sizes = graph.input[0].type.tensor_type.shape.dim
    names = {sizes[place].dim_param: name for place, name in SIZES.items()}
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = names[size.dim_param]


def _run_onnx(data: bytes) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(faces: Tensor) -> dict[str, Tensor]:
        values = session.run(names, {INPUT: faces.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run


def _torch(program: ExportedProgram, about: dict[str, Any], _opset: int) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={ABOUT: json.dumps(about)})
    return file.getvalue()


def _run_torch(data: bytes) -> Run:
    return torch.export.load(io.BytesIO(data)).module()


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _onnx, _run_onnx),
    "torch": Format(".pt2", (), _torch, _run_torch),
}

"""Take a calibrator home: every file is verified before it can be downloaded."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import streamlit as st

from app import apply, bar, cli_export, compute, fuse, jobs, state
from components import controls, display, tables
from core.analysis import UNCALIBRATED, Analysis
from core.calibrators import CALIBRATORS
from core.export import (
    INPUT_NAMES,
    Artefact,
    Kind,
    Verification,
    annotate,
    export,
    export_metadata,
    write_csv,
)
from core.export.readback import verify_rows
from core.fitting import unusable_reason
from core.messages import DataError, FitError, Progress, part_of
from core.predictions import Study
from core.report import report_document
from core.settings import Settings

KINDS: tuple[Kind, ...] = ("python", "json", "onnx32", "onnx", "torch")


class Prepared(NamedTuple):
    """A file with the proof that it says what was shown."""

    data: str | bytes | Callable[[], bytes]
    verification: Verification


@dataclass(frozen=True)
class Card:
    """What the page says of one kind of file."""

    title: str
    icon: str
    words: str
    file_name: str
    mime: str
    use: str
    language: str


_ONNX = (
    "import onnxruntime\n\n"
    'session = onnxruntime.InferenceSession("{file}")\n'
    'probabilities, label = session.run(None, {"{scores}": {input}})'
    "  # (rows, classes)"
)

CARDS = {
    "csv": Card(
        "Calibrated rows",
        ":material/table_view:",
        "Your file with calibrated probabilities, fold and flags beside each row.",
        "calibrated.csv",
        "text/csv",
        "import pandas as pd\n\n"
        'rows = pd.read_csv("{file}")\n'
        'honest = rows[rows["flag"].isin(["test", "cross-fitted"])]\n'
        'print(honest[["prediction", "confidence"]].head())',
        "python",
    ),
    "python": Card(
        "Python module",
        ":material/code:",
        "One file that needs NumPy only. Run it, and it tests itself.",
        "calibrator.py",
        "text/x-python",
        "import numpy as np\n"
        "from calibrator import CLASSES, {function}\n\n"
        'probabilities = {function}(np.load("{input}.npy"){more})  # (rows, classes)\n'
        "print(CLASSES[probabilities[0].argmax()], probabilities[0].max())",
        "python",
    ),
    "json": Card(
        "JSON",
        ":material/data_object:",
        "The calibrator as data: any language reads it, and so does Plumbline.",
        "calibrator.json",
        "application/json",
        "# Calibrate new rows on the command line:\n"
        "python -m app apply calibrator.json new.csv --out calibrated.csv\n\n"
        "# or look inside:\n"
        "python -m json.tool calibrator.json",
        "bash",
    ),
    "onnx32": Card(
        "ONNX, float32",
        ":material/hub:",
        "To run behind your model in onnxruntime; most models give float32.",
        "calibrator_float32.onnx",
        "application/octet-stream",
        _ONNX,
        "python",
    ),
    "onnx": Card(
        "ONNX, float64",
        ":material/hub:",
        "The same with the last digits: for scores in float64.",
        "calibrator.onnx",
        "application/octet-stream",
        _ONNX,
        "python",
    ),
    "torch": Card(
        "PyTorch module",
        ":material/local_fire_department:",
        "Source that needs torch only, and its parameters as safetensors, in a ZIP.",
        "calibrator_torch.zip",
        "application/zip",
        "import torch\n"
        "from calibrator_torch import Calibrator\n\n"
        "calibrator = Calibrator.from_file()\n"
        "probabilities = calibrator({input})  # a tensor (rows, classes)",
        "python",
    ),
    "report": Card(
        "Report",
        ":material/receipt_long:",
        "Every number of the pages before and after, with interval and rows: verdict, "
        "worst class, operating points, each class; seed and settings.",
        "report.json",
        "application/json",
        "import json\n\n"
        'report = json.load(open("report.json", encoding="utf-8"))\n'
        'print(report["verdict"]["headline"], report["repair"])\n'
        'print(report["uncalibrated"]["top-label"]["gap"])',
        "python",
    ),
}


def confidences_only(study: Study, chosen: Settings) -> None:
    """Say what a file of confidences cannot give, and give the report."""
    st.markdown(f":gray[:material/block: {bar.CONFIDENCES_ONLY}]")
    st.download_button(
        "Report as JSON",
        data=lambda: cli_export.json_text(
            report_document(compute.analysis(study, chosen), UNCALIBRATED)
        ),
        file_name="report.json",
        mime="application/json",
        icon=":material/download:",
        key=state.key("get_report"),
        on_click="ignore",
        help=CARDS["report"].words,
    )


def method_choice(study: Study, chosen: Settings) -> str:
    """Choose what is exported among what this file allows."""
    usable = [name for name in CALIBRATORS if unusable_reason(study, name) is None]
    usable.sort(key=lambda name: (name == UNCALIBRATED, name != "temperature"))
    now = CALIBRATORS[chosen.method].id
    controls.setting_choice(
        "Calibrator",
        state.key("export_method"),
        usable,
        now if now in usable else usable[0],
        lambda value: state.change(method=value),
        names={name: CALIBRATORS[name].label for name in usable},
    )
    return now if now in usable else usable[0]


def prepare(
    study: Study, wanted: Settings, report: Progress
) -> tuple[Analysis, dict[str, Prepared]]:
    """Write every file and run or read it back; the slow part of the page."""
    method = wanted.method
    found = compute.analysis(study, wanted, part_of(report, 0.0, 0.4))
    if method != UNCALIBRATED and method not in found.fitted:
        reasons = [n.text for n in found.notes if n.code in ("not-fitted", "no-split")]
        raise FitError(
            f"{CALIBRATORS[method].label} could not be fitted.",
            study.evaluation.name,
            " ".join(reasons) or "Choose another calibrator.",
        )
    made: dict[str, Prepared] = {}
    report(0.4, "Reading the calibrated rows back")
    made["csv"] = Prepared(
        lambda: write_csv(annotate(found, method)), verify_rows(found, method)
    )
    for number, kind in enumerate(KINDS):
        report(0.5 + 0.1 * number, f"Verifying {CARDS[kind].title}")
        made[kind] = prepared(export(found, method, kind))
    proofs = {CARDS[kind].file_name: asdict(made[kind].verification) for kind in made}
    whole = report_document(found, method, part_of(report, 0.9, 1.0))
    document = whole | {"exported": method, "verification": proofs}
    made["report"] = Prepared(cli_export.json_text(document), made["json"].verification)
    return found, made


def prepared(item: Artefact) -> Prepared:
    """Return an artefact as one download; two files go into a ZIP."""
    if len(item.files) == 1:
        return Prepared(next(iter(item.files.values())), item.verification)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in item.files.items():
            archive.writestr(name, data)
    return Prepared(packed.getvalue(), item.verification)


def draw_card(
    kind: str, card: Card, made: Prepared | None, own: str, stem: str, more: str
) -> None:
    """Draw one file: what it is, its proof, its button, and how to use it."""
    name = f"{stem}-calibrated.csv" if kind == "csv" else card.file_name
    with st.container(border=True, height="stretch", gap="small"):
        st.markdown(
            f"{card.icon} **{card.title}**  \n:small[:gray[{card.words}]]",
        )
        if made is None:
            st.markdown(":small[:gray[:material/pending: Not verified yet]]")
        elif not made.verification.is_run:
            said = display.escape_markdown(made.verification.sentence)
            st.markdown(f":small[:gray[:material/info: {said}]]")
        elif not made.verification.ok and made.verification.is_offered:
            st.warning(
                display.escape_markdown(made.verification.problem),
                title="Not within the tolerance",
                icon=":material/warning:",
            )
        elif not made.verification.ok:
            st.error(
                display.escape_markdown(made.verification.problem),
                title="Not offered: the file does not say what was shown",
                icon=":material/error:",
            )
        else:
            st.markdown(f":green[:material/check_circle:] :small[{proof(kind, made)}]")
        with st.container(horizontal=True, gap="small"):
            if made is not None and made.verification.is_offered:
                st.download_button(
                    "Download",
                    data=made.data,
                    file_name=name,
                    mime=card.mime,
                    icon=":material/download:",
                    key=state.key(f"get_export_{kind}"),
                    on_click="ignore",
                    help=name,
                )
            with st.popover("How to use it", type="tertiary"):
                text = card.use.replace("{file}", name).replace("{input}", own)
                text = text.replace("{scores}", INPUT_NAMES[own]).replace(
                    "{more}", more
                )
                function = "calibrate"
                if own == "probabilities":
                    function = "calibrate_probabilities"
                st.code(text.replace("{function}", function), language=card.language)


def proof(kind: str, made: Prepared) -> str:
    """Return what the verification found, in one line."""
    if kind == "report":
        return "strict JSON, with the proofs of the other files"
    item = made.verification
    rows = tables.count_of(item.n_rows, "row")
    if item.n_rows < item.n_total:
        rows = f"{item.n_rows:,} of {tables.count_of(item.n_total, 'row')}"
    largest = f"{item.max_difference:.1e}" if item.max_difference else "0"
    return (
        f"largest difference {largest} over {rows}, "
        f"{tables.count_of(item.n_label_changes, 'label changes', 'labels change')}, "
        f"{tables.count_of(item.n_bin_changes, 'bin changes', 'bins change')}, "
        f"{item.seconds:.1f} s"
    )


def files(study: Study, wanted: Settings, *, is_asked: bool) -> Analysis | None:
    """Verify on demand, and draw a card for each file."""
    name = f"export {study.identity} {wanted.to_json()}"
    own, stem = study.evaluation.input_kind, display.file_stem(study.evaluation.name)
    if is_asked:
        jobs.forget(name)
    made = None
    if is_asked or jobs.is_started(name):
        try:
            made = jobs.run(
                name,
                "Verifying",
                lambda report: prepare(study, wanted, report),
                slot="export",
            )
        except (DataError, FitError) as error:
            display.error_box(error, example=False, key=state.key("export_problem"))
    prepared = {} if made is None else made[1]
    beside = sorted(CALIBRATORS[wanted.method].requires - {"logits"})
    more = "".join(f', np.load("{name}.npy")' for name in beside)
    with st.container(gap="small"):
        for kinds in (
            ("csv", "report"),
            ("python", "json"),
            ("onnx32", "onnx"),
            ("torch", "fused"),
        ):
            for column, kind in zip(st.columns(2, gap="small"), kinds, strict=True):
                with column:
                    if kind == "fused":
                        fuse.draw(study, wanted)
                    else:
                        item = prepared.get(kind)
                        draw_card(kind, CARDS[kind], item, own, stem, more)
    return None if made is None else made[0]


def rank_hint(analysis: Analysis, method: str) -> None:
    """Say which calibrator ranks first, where it is another one."""
    if analysis.comparison is None:
        return
    best = analysis.comparison.ranking[0][0]
    if best != method:
        label = display.escape_markdown(CALIBRATORS[best].label)
        st.markdown(
            f":orange[:material/info:] :small[{label} has the lowest cross-validated "
            "NLL of those compared.]"
        )


def metadata(analysis: Analysis, method: str) -> None:
    """Show what goes along with a calibrator."""
    block = st.expander(
        "What goes along with the calibrator",
        key=state.key("metadata"),
        on_change="rerun",
        icon=":material/info:",
    )
    if block.open:
        with block:
            known = export_metadata(analysis, method)
            for name in ("examples", "example_copies", "example_features"):
                known.pop(name, None)
            rows = (
                "None of your rows but up to five, without labels, for the self-test."
            )
            if "features" in CALIBRATORS[known["method"]].requires:
                rows = (
                    "Features of your fit rows, which it looks for neighbours among, "
                    "and up to five rows, without labels, for the self-test."
                )
            st.caption(
                "In the JSON file and in the Python module: where it comes from, what "
                f"it expects, and its numbers before and after. {rows}"
            )
            st.json(known, expanded=1)


study = state.study()
st.header("Export", anchor=False)
if study is None:
    bar.uploader("upload_first", "Drop your file")
    st.stop()

if study.evaluation.logits is None:
    confidences_only(study, state.settings())
    apply.draw(study, None)
    st.stop()
if not study.evaluation.is_labelled.any():
    st.markdown(
        "**No labels, nothing to fit.** Choose the label column, or apply a saved "
        "calibrator to these rows."
    )
    bar.label_choice()
    apply.draw(study, None)
    st.stop()

with st.container(gap="small"):
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        with st.container(width=360):
            method = method_choice(study, state.settings())
        is_asked = st.button(
            "Verify and prepare",
            type="primary",
            icon=":material/verified:",
            key=state.key("prepare"),
        )
    st.caption(
        "Fitted on all fit rows. Each file is run or read back on your rows before it "
        "is offered; what could not be run here says so."
    )

now = state.settings()
wanted = now.replace(
    method=method,
    temperature=None,
    calibrators=tuple(dict.fromkeys((*now.calibrators, method))),
)
analysis = files(study, wanted, is_asked=is_asked)
if analysis is not None:
    rank_hint(analysis, method)
    metadata(analysis, method)
apply.draw(study, wanted)

"""The section of the Calibrators page that ranks over several data sets or metrics."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import cli_export, jobs, opening, state
from components import display, rankings, tables
from core.analysis import UNCALIBRATED, Analysis, analyze
from core.contrasts import WHY_NOT_ECE
from core.loading import READING_FIELDS, open_study
from core.messages import DataError, FitError, Progress, part_of
from core.metrics import METRICS
from core.rankings import (
    RANKED_BY,
    DataSetScores,
    comparison_document,
    data_set_document,
    put_together,
    read_comparison,
    scores_of,
)
from core.settings import Settings
from core.standings import standings

__all__ = ["section"]

_LARGEST = 64 * 2**20  # bytes of a comparison
_KEPT = "_rankings"


@dataclass(frozen=True, slots=True)
class Added:
    """What a file that was added holds, or why it cannot be used."""

    name: str
    sets: tuple[DataSetScores, ...] = ()
    error: DataError | FitError | None = None


def section(analysis: Analysis, stem: str) -> None:
    """Offer one order of the calibrators over data sets and metrics."""
    if analysis.comparison is None:
        return
    box = st.expander(
        "Ranking over several data sets or metrics",
        key=state.key("several"),
        on_change="rerun",
    )
    if not box.open:
        return
    with box:
        files: tuple[opening.Source, ...] = st.session_state.get(_KEPT, ())
        metrics = _choices(analysis, files, stem)
        added = _read(files, analysis.settings) if files else ()
        if added is None:
            return
        own = scores_of(analysis, standings(analysis))
        sets, twice = _different([own, *(one for item in added for one in item.sets)])
        for number, item in enumerate(added):
            if item.error is not None:
                display.error_box(
                    item.error, example=False, key=state.key(f"several_{number}")
                )
        _show(sets, metrics, analysis.settings.level, stem)
        if twice:
            names = ", ".join(display.code(name) for name in twice)
            st.caption(f"Given twice, counted once: {names}.")


def _choices(
    analysis: Analysis, files: tuple[opening.Source, ...], stem: str
) -> list[str]:
    """Draw what can be added and chosen; return the metrics."""
    left, right = st.columns(2, gap="large")
    with left:
        widget = state.key("upload_rankings")
        st.file_uploader(
            "Other data sets",
            key=widget,
            accept_multiple_files=True,
            on_change=opening.open_rankings,
            args=(widget,),
            help="The comparison.json of other data sets, written by `python -m app "
            "compare` or by the button below; or their predictions, each file a data "
            "set of its own, which are then fitted with the calibrators chosen here.",
        )
    with right:
        chosen = st.pills(
            "Ranked by",
            RANKED_BY,
            selection_mode="multi",
            default=["nll"],
            format_func=lambda name: METRICS[name].label,
            key=state.key("several_metrics"),
            persist_state="session",
            help=f"Cross-validated inside the fit rows. {WHY_NOT_ECE}",
        )
        with st.container(horizontal=True, gap="small"):
            st.download_button(
                "This comparison",
                data=lambda: cli_export.json_text(
                    comparison_document(
                        analysis.settings,
                        [data_set_document(analysis, standings(analysis))],
                    )
                ),
                file_name=f"{stem}-comparison.json",
                mime="application/json",
                icon=":material/download:",
                type="tertiary",
                key=state.key("get_own_comparison"),
                on_click="ignore",
                help="To be added where another data set is open.",
            )
            if files:
                st.button(
                    f"Remove {tables.count_of(len(files), 'file')}",
                    key=state.key("drop_rankings"),
                    icon=":material/close:",
                    type="tertiary",
                    on_click=lambda: st.session_state.pop(_KEPT, None),
                )
    return [name for name in RANKED_BY if name in chosen] or ["nll"]


def _read(
    files: tuple[opening.Source, ...], settings: Settings
) -> tuple[Added, ...] | None:
    """Read comparisons, fit predictions; None while that is under way."""
    plain = Settings()
    own = {name: getattr(plain, name) for name in READING_FIELDS}
    wanted = settings.replace(**own, split=plain.split, baseline=UNCALIBRATED)

    def work(report: Progress) -> tuple[Added, ...]:
        n = len(files)
        return tuple(
            _added(file, wanted, part_of(report, place / n, (place + 1) / n))
            for place, file in enumerate(files)
        )

    numbers = [file.number for file in files]
    key = f"several {numbers} {wanted.to_json()}"
    return jobs.run(key, "Comparing on other data sets", work, slot="several")


def _added(file: opening.Source, settings: Settings, report: Progress) -> Added:
    try:
        return Added(file.name, _scores(file, settings, report))
    except (DataError, FitError) as error:
        return Added(file.name, error=error)


def _scores(
    file: opening.Source, settings: Settings, report: Progress
) -> tuple[DataSetScores, ...]:
    """Return what a comparison holds, or what calibrators reach on predictions."""
    is_small = file.path.stat().st_size <= _LARGEST
    if is_small and file.name.lower().endswith(".json"):
        content = file.path.read_bytes()
        if b'"data_sets"' in content:
            return read_comparison(content, file.name)
    study, _ = open_study(
        file.paths, settings, name=file.names, progress=part_of(report, 0.0, 0.3)
    )
    found = analyze(study, settings, part_of(report, 0.3, 1.0))
    if found.comparison is None:
        reasons = [n.text for n in found.notes if n.code in ("not-fitted", "no-split")]
        raise FitError(
            "No calibrator could be compared on this file.",
            file.name,
            " ".join(reasons) or "Give labelled rows with the scores of every class.",
        )
    return (scores_of(found, standings(found)),)


def _different(
    sets: list[DataSetScores],
) -> tuple[list[DataSetScores], list[str]]:
    """Return every data set once, and the names of those that came again."""
    kept: list[DataSetScores] = []
    twice: list[str] = []
    known: set[str] = set()
    for item in sets:
        if item.fingerprint and item.fingerprint in known:
            twice.append(item.name)
            continue
        known.add(item.fingerprint)
        kept.append(item)
    return kept, twice


def _show(
    sets: list[DataSetScores], metrics: list[str], level: float, stem: str
) -> None:
    """Show the ranks, or what is missing."""
    if len(sets) * len(metrics) < 2:
        st.markdown(
            "**One data set so far.** Add others, or choose a second metric: losses of "
            "different scales are never averaged, only their ranks are compared."
        )
        return
    overall = put_together(sets, metrics, level)
    if overall is None:
        st.markdown(
            "**No calibrator stands in every ranking.** Compare the same ones on "
            "every data set."
        )
        return
    st.markdown(rankings.title(overall))
    display.table(
        rankings.ranks_frame(overall),
        alt="Rank of each calibrator on each data set, best by consensus first",
        data=overall.to_frame,
        name=f"{stem}-ranks",
        key=state.key("get_ranks"),
    )
    said = (overall.agreement_sentence, overall.difference_sentence)
    words = " ".join(rankings.named(item, overall) for item in said if item)
    if overall.left_out:
        words += f" Not in every ranking: {rankings.listed(overall.left_out)}."
    st.caption(display.escape_markdown(words))

"""Which rows the model should not trust itself with: scores, numbers, thresholds."""

from dataclasses import replace
from functools import partial

import streamlit as st

from app import (
    bar,
    jobs,
    ood_detail,
    ood_files,
    ood_given,
    ood_scores,
    relevant,
    state,
)
from components import display, ood_tables, tables
from components.ood import score_label
from core.messages import DataError, FitError
from core.ood import Detection, study_reasons
from core.settings import Settings

BASELINE = "max-softmax"


@st.fragment
def numbers(found: Detection, chosen: Settings, stem: str, name: str) -> None:
    """Show the numbers of every score on every set, and the paired tests.

    `name` says what they are of: the study and the settings.
    """
    st.subheader("What each score catches", anchor=False)
    by_set, by_number, tests = st.tabs(
        ["Every set", "Every number", "Differences"],
        key=state.key("ood_numbers"),
        on_change="rerun",
    )
    if by_set.open:
        with by_set, st.container(gap="small"):
            one_number(found, chosen, stem)
    if by_number.open:
        with by_number, st.container(gap="small"):
            one_set(found, chosen, stem)
    if tests.open:
        with tests, st.container(gap="small"):
            differences(found, chosen, stem, name)


def one_number(found: Detection, chosen: Settings, stem: str) -> None:
    """Show one number, sets side by side."""
    measure = st.segmented_control(
        "Number",
        list(ood_tables.MEASURES),
        default="auroc",
        required=True,
        format_func=ood_tables.MEASURES.__getitem__,
        key=state.key("ood_measure"),
        persist_state="session",
        label_visibility="collapsed",
    )
    display.table(
        ood_tables.sets_frame(found.results, measure),
        alt=f"{ood_tables.MEASURES[measure]} of each score on each set",
        data=partial(ood_tables.evaluation_table, found.results),
        name=f"{stem}-ood",
        key=state.key("get_ood"),
        label="Every number, as CSV",
    )
    words = [
        ood_tables.MEASURE_WORDS[measure],
        f"{len(found.rows.test):,} in-distribution test rows against each set. Small: "
        f"{chosen.level:.0%} intervals, "
        f"{'DeLong' if measure == 'auroc' else 'bootstrap'}.",
    ]
    if measure == "auroc" and ood_tables.has_below_chance(found.results):
        words.append(
            "Orange: under 0.5, OOD rows have the lower scores; not turned round."
        )
    if any(map(ood_tables.is_marked, found.results.values())):
        words.append(
            ":orange[:material/warning:] There is a warning about this score: choose "
            "it under One score to read it."
        )
    if len(found.results) > 1:
        words.append(
            "Sorted by the mean AUROC: the first one, chosen on these rows, flatters "
            "itself here."
        )
    st.caption(" ".join(words))
    first = next(iter(found.results.values())).evaluation
    for of, own in {} if first is None else first.sets.items():
        display.notes(
            replace(note, text=f"{of}: {note.text}")
            for note in own.notes
            if note.code != "below-chance"  # marked in the table
        )


def one_set(found: Detection, chosen: Settings, stem: str) -> None:
    """Show every number on one set or mean."""
    first = next(iter(found.results.values())).evaluation
    if first is None:
        return
    means = {group: f"Mean of {group}" for group in first.members}
    of = st.selectbox(
        "Set",
        [*means, *first.sets],
        format_func=lambda name: means.get(name, name),
        key=state.key(f"ood_of_{len(first.sets)}"),
        width=360,
    )
    display.table(
        ood_tables.numbers_frame(found.results, of),
        alt=f"Every number of each score on {means.get(of, of)}",
        data=partial(ood_tables.evaluation_table, found.results, of),
        name=f"{stem}-ood-{display.file_stem(of)}",
        key=state.key("get_ood_set"),
    )
    if of in first.sets:
        own = first.sets[of]
        useless = f"AUPR-out {own.prevalence:.3f}, AUPR-in {1 - own.prevalence:.3f}"
        st.caption(
            f"{own.n_id:,} in-distribution rows, {own.n_ood:,} OOD rows. A useless "
            f"score has {useless}. FPR95 has in-distribution rows as positives. Small: "
            f"{chosen.level:.0%} intervals."
        )
        display.notes(own.notes)
    else:
        members = ", ".join(map(display.escape_markdown, first.members[of]))
        st.caption(f"Every set counts alike: {members}.")


def differences(found: Detection, chosen: Settings, stem: str, name: str) -> None:
    """Show paired tests against a score."""
    names = list(found.results)
    if len(names) < 2:
        st.caption("A difference takes two scores.")
        return
    base = st.selectbox(
        "Compared with",
        names,
        index=names.index(BASELINE) if BASELINE in names else 0,
        format_func=score_label,
        key=state.key(f"ood_baseline_{len(names)}"),
        width=360,
    )
    made = jobs.run(
        f"ood differences {name} {names} {base}",
        "Comparing",
        lambda _: found.against(base, level=chosen.level),
        slot="ood-differences",
    )
    if made is None:
        return
    display.table(
        ood_tables.differences_frame(made, ood_tables.in_order(found.results)),
        alt=f"AUROC of each score minus that of {score_label(base)}",
        data=partial(ood_tables.differences_table, made, base),
        name=f"{stem}-ood-differences",
        key=state.key("get_ood_differences"),
    )
    st.caption(
        f"AUROC minus that of {score_label(base)}, paired on the same rows (DeLong). "
        "Green is better, orange worse. Every p-value is of one comparison alone."
    )


def greyed(found: Detection) -> None:
    """List the scores that were asked for and cannot be used."""
    if not found.skipped:
        return
    label = tables.count_of(len(found.skipped), "score is", "scores are") + " not used"
    with st.popover(label, icon=":material/block:", type="tertiary"):
        for name, reason in found.skipped.items():
            st.markdown(
                f"**{score_label(name)}**  \n:small[:gray["
                f"{display.escape_markdown(reason)}]]"
            )


study = state.study()
st.header("Out-of-distribution", anchor=False)
if study is None:
    bar.uploader("upload_first", "Drop your file")
    ood_files.sample_button()
    st.stop()

ood_files.draw(study)
ood_files.way_on(study)
chosen = ood_scores.effective(study, state.settings())
ood_scores.choice(study, chosen, study_reasons(study))
ood_given.draw(chosen)
try:
    found, is_done = ood_scores.results(study, chosen, ood_scores.wanted(chosen))
except (FitError, DataError) as error:
    display.error_box(error, example=False, key="ood-problem")
    st.stop()
if found is None:
    st.stop()
file_stem = display.file_stem(study.evaluation.name)
st.caption(display.escape_markdown(f"{found.rows.sentence}."))
greyed(found)
if not found.results:
    if is_done:
        st.markdown("**None of these scores can be used.** Choose others above.")
    st.stop()
if found.rows.ood:
    told = f"{study.identity} {relevant.to_detections(chosen).to_json()}"
    numbers(found, chosen, file_stem, told)
ood_detail.section(study, found, chosen, file_stem)
display.notes([*found.rows.notes, *found.rows.test.notes])

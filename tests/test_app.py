"""The page, driven without a browser."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.settings import Settings

MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
SAMPLES = MAIN.parents[1] / "sample_data"
PAGES = ("calibrators", "data", "export", "methods")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def try_step(at: AppTest, step: int) -> AppTest:
    """Let go of the temperature's slider, as its component does in a browser."""
    at.session_state["try_temperature"] = step
    return at.run()


def settle(at: AppTest, seconds: float = 60) -> AppTest:
    """Run until no job is under way (the fragment that polls does not run here)."""
    end = time.monotonic() + seconds
    while any(b.key and b.key.startswith("cancel-") for b in at.button):
        assert time.monotonic() < end, "a job does not end"
        time.sleep(0.1)
        at.run()
    return at


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(MAIN, default_timeout=30)
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    settle(at)
    assert not at.exception
    return at


def upload(at: AppTest, name: str, content: bytes) -> AppTest:
    uploader = next(u for u in at.file_uploader if "upload_bar" in u.key)
    uploader.upload(name, content)
    at.run()
    settle(at)
    assert not at.exception
    return at


def widget(found, name: str):
    """Return the widget whose key starts with a name."""
    return next(item for item in found if (item.key or "").startswith(name))


def words(at: AppTest) -> str:
    """Return everything that is written on the page, without escapes."""
    parts = [item.value for item in (*at.title, *at.subheader, *at.markdown)]
    parts += [item.value for item in (*at.caption, *at.header)]
    return "\n".join(parts).replace("\\", "").replace("\u2060", "")


def table(n: int, *, labelled: bool = True) -> bytes:
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=(n, 3))
    names = ["cat", "dog", "owl"]
    frame = pd.DataFrame(logits, columns=[f"logit_{name}" for name in names])
    if labelled:
        frame["label"] = np.array(names)[(logits + rng.gumbel(size=(n, 3))).argmax(1)]
    return frame.to_csv(index=False).encode()


def test_every_page_opens_on_the_sample() -> None:
    at = opened()
    assert "Overconfident." in at.title[0].value
    assert "This is a sample" in words(at)
    assert len(at.get("plotly_chart")) == 1
    for page in PAGES:
        at.switch_page(f"views/{page}.py").run()
        settle(at)
        assert not at.exception, page


def test_the_figure_says_its_headline_to_those_who_cannot_see() -> None:
    at = opened()
    chart = at.get("plotly_chart")[0].proto
    assert "points above what came true" in chart.alt
    assert "Before" in chart.spec


def test_a_deep_link_sets_the_settings() -> None:
    at = opened(bins="30", binning="Equal counts")
    assert at.session_state["_settings"].n_bins == 30
    assert "Bins: 30 of equal counts" in words(at)
    assert "undo" not in {b.key for b in at.button}


def test_nonsense_in_the_link_is_ignored() -> None:
    at = opened(bins="-3", level="x", method="nothing")
    assert at.session_state["_settings"] == Settings()


def test_a_bad_upload_says_why_and_the_session_stays() -> None:
    at = opened()
    upload(at, "broken.csv", b"label,logit_a,logit_b\na,1,x\nb,2,1\n")
    assert at.error
    assert "How to fix" in at.error[0].value
    assert "Overconfident." in at.title[0].value
    assert at.session_state["_source"].kind == "sample"
    at.button(key="problem-dismiss").click().run()
    assert not at.error


def test_a_pickle_is_not_opened() -> None:
    at = upload(opened(), "model.pt", b"\x80\x04K\x01.")
    assert "pickle" in at.error[0].proto.title or "pickle" in at.error[0].value


def test_rows_that_cannot_be_read_are_a_question_with_an_answer() -> None:
    content = table(400).decode().splitlines()
    content[5] = ",".join(["", *content[5].split(",")[1:]])
    at = upload(opened(), "gaps.csv", "\n".join(content).encode())
    assert at.error
    at.button(key="problem-answer-0").click().run()
    settle(at)
    assert not at.error
    assert "1 row left out" in words(at)
    at.switch_page("views/data.py").run()
    assert not at.exception
    assert "1 row was left out" in words(at)


def test_an_upload_replaces_the_sample_and_its_bytes_are_let_go() -> None:
    at = upload(opened(), "mine.csv", table(400))
    assert "mine.csv" in words(at)
    assert "This is a sample" not in words(at)
    assert at.session_state["_upload_round"] == 1
    assert not [u for u in at.file_uploader if u.value]


def test_two_files_of_one_upload_are_read_together() -> None:
    rows = pd.read_csv(io.BytesIO(table(400)))
    rows.insert(0, "id", range(400))
    scores, truth = rows.drop(columns="label"), rows[["id", "label"]]
    at = opened()
    uploader = next(u for u in at.file_uploader if "upload_bar" in u.key)
    uploader.set_value(
        [
            ("scores.csv", scores.to_csv(index=False).encode(), "text/csv"),
            ("labels.csv", truth.to_csv(index=False).encode(), "text/csv"),
        ]
    )
    at.run()
    settle(at)
    assert not at.exception
    assert "scores.csv + labels.csv" in words(at)


def test_few_rows_get_no_verdict() -> None:
    at = upload(opened(), "few.csv", table(90))
    assert "Too few rows to tell." in at.title[0].value
    assert "rows would do" in words(at)


def test_without_labels_there_is_no_verdict_but_a_way_on() -> None:
    at = upload(opened(), "new.csv", table(300, labelled=False))
    assert "No labels, no verdict." in at.title[0].value
    assert widget(at.selectbox, "ask_label")


def test_a_binary_file_has_both_views() -> None:
    name = "breast_cancer_binary.csv"
    at = upload(opened(), name, (SAMPLES / name).read_bytes())
    said = words(at)
    for title in ("Predicted class", "Positive class `malignant`"):
        assert f"##### {title}\u2002 :small[:gray[229 test rows]]" in said
    assert "whichever class is predicted lies on average" in said
    assert "probability of `malignant` lies on average" in said
    both = [
        item.value.replace("\N{NO-BREAK SPACE}", " ", regex=True)
        for item in at.table[:2]
    ]
    for frame in both:
        assert list(frame["Measure"]) == ["Gap, points", "ECE, points"]
        assert len(frame.columns) == 3
        assert all(" to " in cell for cell in frame.iloc[0, 1:])
        assert all("null" in cell for cell in frame.iloc[1, 1:])
    assert not both[0].equals(both[1])
    # The same rows before the repair as in the table underneath.
    assert at.table[2].value.iloc[0, 1] == both[0].iloc[0, 1]
    control = next(c for c in at.get("segmented_control") if c.key == "view")
    assert "Positive class before" in said
    assert "Squared error" in said
    control.set_value("positive-class").run()
    settle(at)
    assert not at.exception
    assert at.table[2].value.iloc[0, 1] == both[1].iloc[0, 1]
    assert words(at).count("lies on average") == 2


def line(at: AppTest) -> str:
    """Return the line of what was understood, without its small print."""
    found = next(m.value for m in at.markdown if "left out" in m.value)
    return found.replace("\\", "").replace("\u2060", "").replace("\u2002", " ")


def test_the_line_says_the_evidence_and_what_there_is_not() -> None:
    assert (
        "2,394 rows \u00b7 10 classes \u00b7 logits (the columns are called logit_*) "
        "\u00b7 label `label` \u00b7 group `group` \u00b7 split column: "
    ) in line(opened())
    at = upload(opened(), "mine.csv", table(400))
    assert "no group column \u00b7 5-fold cross-fit \u00b7 0 rows left out" in line(at)
    at = upload(opened(), "new.csv", table(300, labelled=False))
    assert "**no label column** \u00b7 no group column" in line(at)


@pytest.mark.filterwarnings("ignore:Every row lies in 0 to 1")
def test_scores_can_be_read_the_other_way_beside_the_line() -> None:
    frame = pd.DataFrame({"label": ["a", "b"] * 100, "a": 0.6, "b": 0.4})
    at = upload(opened(), "mine.csv", frame.to_csv(index=False).encode())
    assert "probabilities (" in line(at)
    button = widget(at.button, "bar_flip")
    assert button.label == "Read as logits"
    button.click().run()
    settle(at)
    assert not at.exception
    assert not at.error
    assert "logits (chosen)" in line(at)
    assert widget(at.button, "bar_flip").label == "Read as probabilities"
    at.button(key="undo").click().run()
    settle(at)
    assert "probabilities (" in line(at)


def test_confidences_have_a_verdict_and_no_repair() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 600)
    frame = pd.DataFrame(
        {"confidence": confidence, "correct": (rng.random(600) < 0.6).astype(int)}
    )
    at = upload(opened(), "confidence.csv", frame.to_csv(index=False).encode())
    assert "Overconfident." in at.title[0].value
    assert "No repair." in words(at)
    assert "600 rows \u00b7 confidences (column confidence " in line(at)
    assert "outcome `correct` \u00b7 no group column \u00b7 0 rows" in line(at)
    assert "cross-fit" not in words(at)
    assert words(at).count("scores of every class") == 1
    assert len(at.get("plotly_chart")) == 1


def test_where_no_temperature_fits_there_is_a_reason_and_no_repair() -> None:
    frame = pd.read_csv(io.BytesIO(table(400)))
    scores = frame.filter(like="logit_")
    frame["label"] = scores.idxmax(axis=1).str.removeprefix("logit_")
    at = upload(opened(), "right.csv", frame.to_csv(index=False).encode())
    said = words(at)
    assert "No repair. No temperature fits these rows." in said.replace("**", "")
    assert "all fit rows are right" in said
    assert "nan" not in said
    assert "T lies between" not in said
    assert "minimises" not in said
    assert "After" not in at.get("plotly_chart")[0].proto.spec
    offered = {item.proto.id: item.proto.disabled for item in at.get("download_button")}
    for name in ("get_csv", "get_python", "get_json"):
        assert [off for key, off in offered.items() if name in key] == [True]


def test_roles_can_be_changed_and_taken_back() -> None:
    at = opened()
    assert "group `group`" in words(at)
    widget(at.selectbox, "bar_group").set_value("").run()
    settle(at)
    assert not at.exception
    assert at.session_state["_settings"].group_column == ""
    assert "group `group`" not in words(at)
    at.button(key="undo").click().run()
    settle(at)
    assert at.session_state["_settings"].group_column is None
    assert "group `group`" in words(at)


def test_settings_travel_in_a_session_file() -> None:
    at = opened()
    at.switch_page("views/data.py").run()
    wanted = Settings(n_bins=7, strategy="quantile", seed=3, group_column="")
    uploader = next(u for u in at.file_uploader if "upload_session" in u.key)
    uploader.upload("session.json", wanted.to_json().encode())
    at.run()
    settle(at)
    at.run()
    assert not at.exception
    assert at.session_state["_settings"] == wanted
    assert at.session_state["bins"] == 7
    assert at.number_input(key="bins").value == 7


def test_a_file_that_is_no_session_is_refused() -> None:
    at = opened()
    at.switch_page("views/data.py").run()
    uploader = next(u for u in at.file_uploader if "upload_session" in u.key)
    uploader.upload("session.json", b"{}")
    at.run()
    assert at.error
    assert at.session_state["_settings"] == Settings()


def test_undo_takes_back_a_widget_of_the_link() -> None:
    at = opened()
    at.number_input(key="bins").set_value(8).run()
    settle(at)
    assert at.session_state["_settings"].n_bins == 8
    at.button(key="undo").click().run()
    settle(at)
    assert at.session_state["_settings"].n_bins == 15
    assert at.number_input(key="bins").value == 15


def test_a_path_is_only_read_where_the_server_is_local(monkeypatch) -> None:
    at = opened()
    at.switch_page("views/data.py").run()
    assert "path" not in {t.key for t in at.text_input}
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "127.0.0.1")
    at.run()
    at.text_input(key="path").set_value(str(SAMPLES / "digits_features.npz")).run()
    settle(at)
    assert not at.exception
    assert at.session_state["_source"].name == "digits_features.npz"


def test_the_file_of_the_environment_is_opened_first(monkeypatch) -> None:
    monkeypatch.setenv("PLUMBLINE_FILE", str(SAMPLES / "breast_cancer_binary.csv"))
    at = opened()
    assert "breast_cancer_binary.csv" in words(at)
    monkeypatch.setenv("PLUMBLINE_FILE", "/there/is/no/such/file.csv")
    at = opened()
    assert at.error
    assert at.button(key="use_sample")


def test_the_split_can_be_changed_on_the_data_page() -> None:
    at = opened()
    at.switch_page("views/data.py").run()
    widget(at.selectbox, "split_kind").set_value("holdout").run()
    settle(at)
    assert not at.exception
    assert at.session_state["_settings"].split == "holdout"
    assert "random holdout" in words(at)
    widget(at.selectbox, "split_kind").set_value("time").run()
    assert not at.exception
    assert at.error


def test_a_job_shows_progress_and_can_be_cancelled_and_started_again(
    monkeypatch,
) -> None:
    def script():
        import time

        import streamlit as st

        from app import jobs

        def work(report):
            for step in range(600):
                report(step / 600, "counting")
                time.sleep(0.02)
                if st.session_state.get("hurry"):
                    return 42
            return 0

        st.write("result", jobs.run("a key", "Counting", work, slot="test"))

    monkeypatch.setattr("app.jobs.GRACE", 0.1)
    at = AppTest.from_function(script, default_timeout=30).run()
    assert at.get("progress")
    at.button(key="cancel-test").click().run()
    settle(at)
    assert "was stopped" in words(at)
    at.session_state["hurry"] = True
    at.button(key="again-test").click().run()
    settle(at)
    assert not at.exception
    assert "42" in words(at)


def test_work_that_nobody_waits_for_any_more_frees_its_thread(monkeypatch) -> None:
    # The first page's work is left for another page, then for other settings.
    def script():
        import time

        import streamlit as st

        from app import jobs

        state = st.session_state
        ended = state.setdefault("ended", [])

        def work(name, report):
            try:
                for step in range(3000):
                    report(step / 3000, "counting")
                    time.sleep(0.01)
                    if state.get("hurry"):
                        return f"{name} done"
            finally:
                ended.append(name)

        with jobs.waiting():
            wanted = state.get("wanted", "a b c")
            for name in wanted.split():
                found = jobs.run(
                    name, name, lambda r, n=name: work(n, r), slot=f"slot {name}"
                )
                st.write(name, found)

    def wait_until(condition) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    monkeypatch.setattr("app.jobs.GRACE", 0.1)
    at = AppTest.from_function(script, default_timeout=30).run()
    ended = at.session_state["ended"]
    jobs = at.session_state["_jobs"].jobs
    assert list(jobs) == ["a", "b", "c"]  # c has no thread yet
    third = jobs["c"].future
    assert not third.running()
    at.run()
    assert list(jobs) == ["a", "b", "c"]  # they are still asked for
    at.session_state["wanted"] = "d"
    at.run()
    assert list(jobs) == ["d"]
    assert third.cancelled()
    wait_until(lambda: sorted(ended) == ["a", "b"])
    at.session_state["wanted"], at.session_state["hurry"] = "d a", True
    at.run()
    settle(at)
    assert not at.exception
    assert "d done" in words(at)
    assert "a done" in words(at)  # asked for again, it starts anew


def test_a_job_that_waits_for_a_thread_can_be_cancelled(monkeypatch) -> None:
    def script():
        import time

        from app import jobs

        def work(report):
            for _ in range(3000):
                report(0.5, "counting")
                time.sleep(0.01)

        for slot in ("one", "two", "three"):
            jobs.run(slot, slot, work, slot=slot)

    monkeypatch.setattr("app.jobs.GRACE", 0.1)
    at = AppTest.from_function(script, default_timeout=30).run()
    at.button(key="cancel-three").click().run()
    assert at.button(key="again-three")
    assert not at.exception
    for slot in ("one", "two"):
        at.button(key=f"cancel-{slot}").click().run()


def test_a_job_that_fails_hands_over_its_error() -> None:
    def script():
        import streamlit as st

        from app import jobs
        from core.messages import DataError

        def work(report):
            raise DataError("Something is odd.", "row 3", "Mend it.")

        try:
            jobs.run("another key", "Failing", work)
        except DataError as error:
            st.error(str(error))

    at = AppTest.from_function(script, default_timeout=30).run()
    settle(at)
    assert "row 3" in at.error[0].value

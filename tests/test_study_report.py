import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments.studies import report
from experiments.studies.claims import Claim, Judged
from experiments.studies.effects import Effect
from jaxsparse.reports import plot_style

STABLE = Claim(
    "stable",
    "large batches |\n are stable",
    "figure",
    "below 2 points",
    lambda found: None,
)
CLAIMS = (
    Judged(
        STABLE,
        "reproduced",
        Effect(0.4, (0.3, 0.5), 0.01, 0.99, 3, "0.4 points"),
        "unstable: yes (3.0 points)",
        (0.02, 1.0),
    ),
    Judged(STABLE._replace(name="far"), "contradicted", short=True),
    Judged(STABLE._replace(name="near"), "not measured"),
)
FRAME = pd.DataFrame({"variant": ["a", "b"], "mean": [0.1 + 0.2, np.nan]})


def drawn():
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    return figure


@pytest.fixture
def section():
    shown = pd.DataFrame({"Variant": ["<b>", "b"], "Mean": ["0.30", ""]})
    return report.Section(
        name="mnist",
        title="LeNet & co",
        lines=["25 of 25 epochs.", "3 seeds < 4."],
        claims=CLAIMS,
        about_claims="Thresholds were written before.",
        tables=[
            report.Table("Curvature", "Long.", shown, long=True),
            report.Table("Accuracy", "", shown),
        ],
        frames={"variants": FRAME, "empty": pd.DataFrame()},
        figures={"accuracy": drawn(), "absent": None, "map": drawn()},
        captions={"accuracy": "Accuracy.", "map": "A map.", "absent": "Not here."},
    )


@pytest.fixture
def unrendered(monkeypatch):
    """Saves the seconds that pictures take, where nobody looks at them."""
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_the_page_for_the_repository_in_full(section, tmp_path):
    report.write("A study", [section], tmp_path)
    assert (tmp_path / "mnist.md").read_text() == (
        "# LeNet & co\n\n25 of 25 epochs.\n\n3 seeds < 4.\n\n"
        "## Claims\n\n"
        "Verdicts: 1 reproduced, 1 contradicted, 1 not measured. All verdicts are "
        "marked as short: the runs have less than a third of the published length. "
        f"{report._RULES} Thresholds were written before.\n\n"
        "| Verdict | Claim | Statement | Published | Threshold | Written | Premises "
        "| Ours | Effect (90 % interval) | n | p (Holm) | p against (Holm) |\n"
        f"|{' --- |' * 12}\n"
        "| reproduced | stable | large batches \\| are stable | figure "
        "| below 2 points | before | unstable: yes (3.0 points) | 0.4 points "
        "| 0.4 (0.3 to 0.5) | 3 | 0.01 (0.02) | 0.99 (1) |\n"
        "| contradicted | far | large batches \\| are stable | figure "
        "| below 2 points | before |  |  |  |  |  |  |\n"
        "| not measured | near | large batches \\| are stable | figure "
        "| below 2 points | before |  |  |  |  |  |  |\n\n"
        "## Accuracy\n\n"
        "| Variant | Mean |\n| --- | --- |\n| <b> | 0.30 |\n| b |  |\n\n"
        "![Accuracy.](mnist_accuracy.png)\n\nAccuracy.\n\n"
        "![A map.](mnist_map.png)\n\nA map.\n\n"
        "## Curvature\n\nLong.\n\n"
        "| Variant | Mean |\n| --- | --- |\n| <b> | 0.30 |\n| b |  |\n"
    )


def test_the_page_of_all_is_whole_escaped_and_the_same_again(section, tmp_path):
    other = report.Section(name="cifar", title="ResNet")
    for name in "ab":
        report.write("<A study>", [section, other], tmp_path / name)
    content = (tmp_path / "a" / "index.html").read_text()
    order = (
        *("<h1>&lt;A study&gt;</h1>", "<h2>LeNet &amp; co</h2>"),
        *("<p>25 of 25 epochs.</p>", "<p>3 seeds &lt; 4.</p>", "<h3>Claims</h3>"),
        *("<h3>Accuracy</h3>\n<div", "<h3>Figures</h3>", "<h3>Curvature</h3>"),
        *("<p>Long.</p>", "<h2>ResNet</h2>", "Nothing has been measured yet."),
    )
    places = [content.index(words) for words in order]
    assert places == sorted(places)
    assert "<td>&lt;b&gt;</td>" in content
    assert '<table class="dataframe words">' in content
    assert content.count('src="data:image/svg+xml;base64,') == 2
    for unwanted in ("<script", "<b>", "http", "href", "url(", "<p></p>"):
        assert unwanted not in content
    names = files(tmp_path / "a")
    assert names == {
        *(
            "index.html",
            "mnist.md",
            "cifar.md",
            "mnist_claims.csv",
            "mnist_variants.csv",
        ),
        *("mnist_accuracy.png", "mnist_accuracy.svg", "mnist_map.png", "mnist_map.svg"),
    }
    for name in names:
        first, second = ((tmp_path / folder / name).read_bytes() for folder in "ab")
        assert first == second


@pytest.mark.usefixtures("unrendered")
def test_tables_are_kept_with_all_digits(section, tmp_path):
    report.write("A study", [section], tmp_path)
    content = (tmp_path / "mnist_variants.csv").read_bytes()
    assert content == b"variant,mean\na,0.30000000000000004\nb,\n"
    claims = pd.read_csv(tmp_path / "mnist_claims.csv", keep_default_na=False)
    assert claims.loc[0, "statement"] == "large batches | are stable"
    assert (claims.loc[0, "p"], claims.loc[0, "p_holm"]) == ("0.01", "0.02")
    assert claims.loc[1, ["verdict", "claim", "p"]].tolist() == [
        *("contradicted", "far", "")
    ]


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"claims": ()}, {"claims.csv"}),
        ({"frames": {}}, {"variants.csv"}),
        ({"frames": {"variants": FRAME[:0]}}, {"variants.csv"}),
        (
            {"figures": {"map": None, "accuracy": drawn()}},
            {"map.png", "map.svg"},
        ),
        ({"tables": ()}, set()),
        ({"lines": ()}, set()),
    ],
    ids=lambda value: "-".join(sorted(value)),
)
def test_what_is_empty_is_left_out_and_its_files_deleted(
    section, tmp_path, change, gone
):
    report.write("A study", [section], tmp_path)
    before = files(tmp_path)
    headings = (tmp_path / "mnist.md").read_text().count("## ")
    for name in ("mnist_notes.txt", "cifar_variants.csv", "mnist2_variants.csv"):
        (tmp_path / name).touch()
        before.add(name)
    (tmp_path / "mnist_old.md").touch()
    report.write("A study", [section._replace(**change)], tmp_path)
    assert files(tmp_path) == before - {f"mnist_{name}" for name in gone}
    content = (tmp_path / "mnist.md").read_text()
    fewer = {"claims": 1, "tables": 2}.get(next(iter(change)), 0)
    assert content.count("## ") == headings - fewer
    assert ("25 of 25" in content) == ("lines" not in change)


@pytest.mark.usefixtures("unrendered")
def test_a_table_without_rows_is_left_out(section, tmp_path):
    empty = report.Table("Nothing", "", pd.DataFrame({"Variant": []}))
    report.write("A study", [section._replace(tables=[empty])], tmp_path)
    assert "Nothing" not in (tmp_path / "mnist.md").read_text()


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_name_may_begin_with_another(section, tmp_path, order):
    sections = [section, section._replace(name="mnist_small")]
    for _ in range(2):
        report.write("A study", [sections[place] for place in order], tmp_path)
    both = {name for name in files(tmp_path) if name.startswith("mnist_small")}
    assert len(both) == 7
    assert len(files(tmp_path)) == 1 + 2 * 7


def test_a_section_of_which_nothing_is_known_says_so(tmp_path):
    section = report.Section("mnist", "LeNet", lines=["Running."])
    page = report.write("A study", [section], tmp_path)
    words = "Nothing has been measured yet."
    assert (tmp_path / "mnist.md").read_text() == f"# LeNet\n\nRunning.\n\n{words}\n"
    assert f"<strong>{words}</strong>" in page.read_text()
    assert files(tmp_path) == {"index.html", "mnist.md"}

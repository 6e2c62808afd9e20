"""What runs are called, which are compared, and how far they are."""

import re

import pandas as pd
import pytest

from jaxsparse.reports import (
    folder,
    html,
    method_figures,
    method_names,
    methods,
    page,
    plot_style,
    progress,
    report_figures,
    settings,
)
from jaxsparse.reports import records as records_lib

RECIPE = "python experiments/train.py --config=configs/random_mnist.py"


def config(data="mnist", network="lenet_300_100", method="static", **sections):
    made = {
        "data": {"name": data},
        "model": {"name": network},
        "lottery": {"levels": 0},
        "sparse": {"method": method, "pai_score": "random", "distribution": "global"},
    }
    for name, fields in sections.items():
        made[name] = made.get(name, {}) | fields
    return made


def run(name="a", command=RECIPE, records=(), **sections):
    environment = {"command": command}
    return records_lib.RunRecords(name, config(**sections), environment, list(records))


TOST = {
    "tost": {"activation": "swish", "skips": "convolution"},
    "gradinit": {"steps": 180},
    "training": {"label_smoothing": 0.1},
}


@pytest.mark.parametrize(
    ("sections", "flags", "called"),
    [
        ({}, "", "random (global)"),
        (
            TOST,
            "",
            "random (global) + ToST (swish neurons, ghost skips: convolution, rescaled "
            "initialization, label smoothing 0.1)",
        ),
        (
            {"training": {"label_smoothing": 0.2}},
            "--config.training.label_smoothing=0.2",
            "random (global) + label smoothing 0.2",
        ),
        (
            {"warm_start": {"run": "../lth", "masks": "level_03/ticket/last"}},
            "",
            "masks of another run (lth level_03/ticket/last)",
        ),
        (
            {
                "warm_start": {
                    "run": "../dense",
                    "weights": "init",
                    "masks_run": "../lth",
                    "masks": "train/last",
                    "align": "activations",
                }
            },
            "",
            "masks of another run (lth train/last, aligned by activations) + weights "
            "of dense init",
        ),
        (
            {
                "warm_start": {
                    "run": "../lth",
                    "masks": "train/last",
                    "depth": "append",
                }
            },
            "",
            "masks of another run (lth train/last) + blocks appended",
        ),
        (
            {
                "warm_start": {
                    "run": "../lth",
                    "weights": "rewind",
                    "masks": "train/last",
                    "depth": "interpolate",
                }
            },
            "",
            "masks of another run (lth train/last) + weights of lth rewind + blocks "
            "interpolated",
        ),
        (
            {
                "optimizer": {"nesterov": False, "weight_decay": 0.5},
                "seeds": {"init": 3},
            },
            "--config.optimizer.weight_decay=0.5 --noconfig.optimizer.nesterov "
            "--config.seeds.init=3 --config.data.name=mnist",
            "random (global), no nesterov, weight decay 0.5",
        ),
        (
            {"method": "none", "lottery": {"levels": 3, "rewind": "10step"}},
            "",
            "lottery tickets (rewound to 10step)",
        ),
        (
            {"solution_penalty": {"strength": 0.1}},
            "",
            "random (global) + repelled from earlier levels: 0.1",
        ),
    ],
)
def test_labels_say_what_is_not_the_methods_or_the_recipes_own(sections, flags, called):
    assert method_names.of_run(run(command=f"{RECIPE} {flags}", **sections)) == called


def test_without_a_command_what_differs_from_the_defaults_is_said():
    made = run(command="", optimizer={"momentum": 0.9})
    assert method_names.of_run(made) == "random (global), momentum 0.9"


def test_labels_of_what_users_registered_are_those_that_they_gave():
    labels = {"score": "own score", "model": "own net", "dataset": "own data"}
    registered = {kind: {"own": {"label": name}} for kind, name in labels.items()}
    sections = {
        "lottery": {"levels": 2, "score": "own"},
        "sparse": {"method": "none"},
        "data": {"name": "own"},
        "model": {"name": "own"},
    }
    made = records_lib.RunRecords("a", sections, {"registered": registered}, [])
    assert method_names.of_run(made).startswith("lottery tickets (own score pruning)")
    assert settings.title([made]) == "own net on own data"
    built_in = sections | {"lottery": {"levels": 2, "score": "snip"}}
    named = records_lib.RunRecords("a", built_in, {}, [])
    assert method_names.of_run(named).startswith("lottery tickets (SNIP pruning)")
    unknown = records_lib.RunRecords("a", sections, {}, [])
    assert method_names.of_run(unknown).startswith("lottery tickets (own pruning)")


def test_labels_of_lotteries_have_the_options_of_their_score():
    recipe = f"{RECIPE} --config.sparse.power=2"
    lottery = {"lottery": {"levels": 2, "score": "own"}}
    made = run(command=recipe, method="none", sparse={"power": 2.0}, **lottery)
    assert method_names.of_run(made) == "lottery tickets (own pruning), power 2.0"


def test_labels_leave_out_what_was_changed_in_all_runs_and_tell_what_differs():
    both = f"{RECIPE} --config.training.duration=9step"
    runs = [
        run(
            name,
            f"{both} --config.schedule.gamma=0.5" if gamma else both,
            training={"duration": "9step"},
            schedule={"gamma": 0.5 if gamma else 0.1},
            optimizer={"momentum": momentum},
        )
        for name, gamma, momentum in (("a", 1, 0.9), ("b", 0, 0.9), ("c", 0, 0.0))
    ]
    assert method_names.series(runs) == {
        "a": "random (global), gamma 0.5",
        "b": "random (global), momentum 0.9",
        "c": "random (global), momentum 0.0",
    }
    mixed = method_names.series([run("a"), run("b", data="digits")])
    assert mixed == {
        "a": "random (global), LeNet-300-100 on MNIST",
        "b": "random (global), LeNet-300-100 on digits",
    }


def test_only_runs_on_the_same_data_and_network_are_compared():
    sparse, digits = run("a"), run("b", data="digits")
    other, wider = run("c", network="lenet_5"), run("d", model={"features": [9]})
    dense = run("e", method="none")
    small = run("f", method="none", model={"features": [3, 2]})
    runs = [sparse, digits, other, wider, dense, small]
    groups = [[run.name for run in group] for group in settings.comparable(runs)]
    assert groups == [["a", "e", "f"], ["b"], ["c"], ["d"]]
    assert settings.title([sparse]) == "LeNet-300-100 on MNIST"
    assert settings.title([records_lib.RunRecords("x", {}, {}, [])]) == "x"


def ended(level, variant="ticket", accuracy=0.9, replicate=0, kept=10):
    place = {"stage": f"level_{level:02d}/{variant}", "level": level}
    place["variant"] = variant
    return {
        "kind": "level",
        **place,
        "replicate": replicate,
        "step": 9,
        "kept": kept,
        "total": 100,
        "density": kept / 100,
        "effective_params": None,
        "layers": {"a/kernel": [kept, 100]},
        "test_accuracy": accuracy,
    }


@pytest.mark.parametrize(
    ("lottery", "records", "note"),
    [
        ({"levels": 2}, [], "Unfinished: 0 of 3 levels, counting the dense one."),
        (
            {"levels": 2, "controls": ["random_mask"]},
            [ended(0), ended(1), ended(1, "random_mask"), ended(2)],
            "Unfinished: 2 of 3 levels, counting the dense one.",
        ),
        (
            {"levels": 2, "controls": ["random_mask"], "control_levels": [1]},
            [ended(0), ended(1), ended(1, "random_mask"), ended(2)],
            "",
        ),
        (
            {"levels": 0},
            [{"kind": "train", "step": 7}],
            "Unfinished: at step 7; training lasts 20step.",
        ),
        ({"levels": 0}, [ended(0)], ""),
    ],
)
def test_a_run_that_has_not_ended_says_how_far_it_is(lottery, records, note):
    made = run(lottery=lottery, records=records, training={"duration": "20step"})
    assert progress.unfinished(made) == note
    assert progress.unfinished(made._replace(ended=True)) == ""


@pytest.fixture
def unrendered(monkeypatch):
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")


@pytest.mark.usefixtures("unrendered")
def test_the_page_begins_with_what_is_unfinished_and_what_was_trained(
    make_run, tmp_path
):
    fields = config(method="none", lottery={"levels": 2}, optimizer={"name": "adam"})
    environment = {"command": f"{RECIPE} --config.optimizer.name=adam"}
    made = make_run("a", [ended(0)], config=fields, environment=environment)
    content = page.write([made], tmp_path / "out").read_text()
    body = re.sub(r">\s+<", "><", content[content.index("<h1>") :])
    begins = [
        "<h1>LeNet-300-100 on MNIST</h1>",
        "Unfinished: 1 of 3 levels, counting the dense one.",
        "<td>Method</td><td>lottery tickets, optimizer adam</td>",
        "<td>Dataset</td><td>MNIST</td>",
        "<td>Optimizer</td><td>adam</td>",
        "<td>Other than the recipe</td><td>optimizer.name = adam</td>",
        "Dense network: 90.00 % test accuracy",
    ]
    places = [body.index(words) for words in begins]
    assert places == sorted(places)
    (made / "ended.json").write_text('["level_02/ticket/last"]')
    (again,) = records_lib.read_runs([made])
    assert progress.unfinished(again) == ""


@pytest.mark.usefixtures("unrendered")
def test_digits_and_mnist_are_one_table_only_if_asked(make_run, tmp_path):
    folders = [
        make_run(name, [ended(0)], config=config(data=name[:-1]))
        for name in ("mnist1", "digits1", "mnist2", "digits2")
    ]
    content = page.write(folders, tmp_path / "out").read_text()
    assert "2 different datasets or networks" in content
    methods_of = re.findall(r"<h3>Methods</h3>.*?</table>", content, re.DOTALL)
    assert [re.findall(r"<td>([a-z]+\d)</td>", made) for made in methods_of] == [
        ["mnist1", "mnist2"],
        ["digits1", "digits2"],
    ]
    drawn = {path.name for path in (tmp_path / "out").glob("*methods.png")}
    assert drawn == {"group1_methods.png", "group2_methods.png"}
    table = pd.read_csv(tmp_path / "out" / "methods.csv")
    assert table["trained"].str.split(" on ").str[1].tolist() == [
        *("MNIST", "MNIST", "digits", "digits")
    ]
    content = page.write(folders[:2], tmp_path / "mixed", together=True).read_text()
    assert content.count("<h3>Methods</h3>") == 1
    assert "random (global), LeNet-300-100 on digits" in content


def test_seeds_of_one_experiment_are_one_run():
    parts = [
        run(
            f"set-seeds_{first}_to_{first + 1}",
            records=[ended(0, replicate=r, accuracy=first / 10) for r in range(2)],
            seeds={"first": first},
        )
        for first in (2, 0)
    ]
    parts = [part._replace(config=part.config | {"replicates": 2}) for part in parts]
    (pooled,) = progress.pool(parts)
    assert pooled.name == "set (seeds 0 to 3)"
    assert pooled.config["replicates"] == 4
    found = {row["replicate"]: row["test_accuracy"] for row in pooled.records}
    assert found == {0: 0.0, 1: 0.0, 2: 0.2, 3: 0.2}
    again = [parts[0], parts[0]._replace(name="same seeds"), run("other", data="x")]
    assert progress.pool(again) == again


def test_accuracy_is_drawn_against_sparsity_one_line_a_method():
    def at(name, kept, accuracies, **sections):
        records = [
            ended(0, kept=kept, accuracy=accuracy, replicate=r)
            for r, accuracy in enumerate(accuracies)
        ]
        sparsity = {"sparsity": 1 - kept / 100}
        sections["sparse"] = sections.get("sparse", {}) | sparsity
        return run(name, records=records, **sections)

    snip = {"sparse": {"pai_score": "snip"}}
    runs = [
        at("a", 2, (0.5, 0.6)),
        at("b", 20, (0.8, 0.9)),
        at("c", 20, (0.85, 0.95), **snip),
        at("d", 2, (0.6, 0.7), **snip),
        at("e", 100, (0.98, 0.96), method="none"),
    ]
    table = methods.sparsities_table(runs[:4])
    assert table["label"].tolist() == ["random (global)"] * 4 + ["SNIP"] * 4
    assert table["sparsity"].tolist() == pytest.approx([80, 80, 98, 98] * 2)
    accuracies = [80, 90, 50, 60, 85, 95, 60, 70]
    assert table["test_accuracy"].tolist() == pytest.approx(accuracies)
    drawn = report_figures.compare(runs)
    (axes,) = drawn["sparsity"].axes
    assert drawn["sparsity"].get_suptitle().startswith("LeNet-300-100 on MNIST")
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    first, second, dense = lines
    assert sorted(first.get_xdata()) == pytest.approx([2, 20])
    assert sorted(first.get_ydata()) == pytest.approx([55, 85])
    assert sorted(second.get_ydata()) == pytest.approx([65, 90])
    assert list(dense.get_ydata()) == pytest.approx([97, 97])
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["80", "98"]
    called = [text.get_text() for text in drawn["sparsity"].legends[0].get_texts()]
    assert called == [*("random (global) (n = 2)", "SNIP (n = 2)", "dense (n = 2)")]
    assert "sparsity" not in report_figures.compare([runs[0], runs[2], runs[4]])
    is_dense = method_figures.is_dense_reference(methods.methods_table(runs))
    assert is_dense.sum() == 1


def test_a_page_that_no_report_wrote_is_left_alone(make_run, tmp_path):
    made, out = make_run("a", []), tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("<html><title>jaxsparse notes</title></html>")
    with pytest.raises(ValueError, match=r"index.html: expected no file or the page"):
        page.write([made], out)
    assert [path.name for path in out.iterdir()] == ["index.html"]
    (out / "index.html").unlink()
    written = page.write([made], out)
    assert folder.GENERATOR in written.read_text()
    page.write([made], out)
    # Pages of before did not say what wrote them.
    written.write_text(written.read_text().replace(f"{folder.GENERATOR}\n", ""))
    page.write([made], out)


def test_long_tables_are_folded():
    rows = pd.DataFrame({"a": ["x"] * 16})

    def shown(table, kind=""):
        part = html.Part(table=table, kind=kind)
        return html.render("t", [html.Chapter("", [part])])

    assert "<details><summary>16 rows</summary>" in shown(rows)
    assert "<details" not in shown(rows.iloc[:15])
    assert "<details" not in shown(rows, kind="words")

"""Parameters: text to value to code and back, whatever the type; what papermill makes of the same cell."""

import ast
import json
import math
import subprocess
import sys
from datetime import date
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import ConfigError
from mlworkbench.core.kinds import Text, as_json, convert, read_annotation
from mlworkbench.flow.parameters import declared, injected_code, read_overrides, resolve


def a_notebook(text):
    return {"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": text}]}


def of(annotation, given_value, default="None"):
    """A parameter of that type, through everything that happens to it before a kernel starts."""
    notebook = a_notebook(f"value: {annotation} = {default}")
    step = SimpleNamespace(name="step", params={}, secrets=[])
    params = resolve({"step": (step, notebook)}, {"value": given_value})["step"]
    namespace = {}
    exec(injected_code(notebook, params), namespace)
    return namespace["value"]


SIMPLE = {
    "int": st.integers(),
    "float": st.floats(allow_nan=False),
    "str": st.text(),
    "bool": st.booleans(),
    "date": st.dates(),
    "datetime": st.datetimes(),
    "Literal['roc_auc', 'log loss', 3]": st.sampled_from(["roc_auc", "log loss", 3]),
}


def nested(inner):
    """Annotations and values of lists, tuples, dicts and optionals of them."""
    annotation, values = inner
    return st.sampled_from(
        [
            (f"list[{annotation}]", st.lists(values, max_size=4)),
            (f"tuple[{annotation}, ...]", st.lists(values, max_size=4).map(tuple)),
            (f"dict[str, {annotation}]", st.dictionaries(st.text(), values, max_size=4)),
            (f"dict[int, {annotation}]", st.dictionaries(st.integers(), values, max_size=4)),
        ]
    )


@st.composite
def annotated_values(draw):
    annotation, values = draw(st.sampled_from(sorted(SIMPLE.items(), key=str)))
    for _ in range(draw(st.integers(0, 2))):
        annotation, values = draw(nested((annotation, values)))
    if draw(st.booleans()):
        annotation, values = f"Optional[{annotation}]", st.none() | values
    return repr(annotation) if draw(st.booleans()) else annotation, draw(values)


def as_text(annotation, value):
    """What a person would type."""
    if isinstance(value, str):  # where null is accepted, quotes make a text of it
        return json.dumps(value) if "Optional" in annotation and "Literal" not in annotation else value
    return (
        str(as_json(value))
        if isinstance(value, int | float | date) and type(value) is not bool
        else json.dumps(as_json(value))
    )


def same(one, other):
    return one == other and type(one) is type(other)


@settings(max_examples=200)
@given(annotated_values())
def test_text_to_value_to_code_gives_the_same_value(case):
    annotation, value = case
    assert same(of(annotation, Text(as_text(annotation, value))), value)


@settings(max_examples=100)
@given(annotated_values())
def test_a_typed_value_and_its_json_in_a_record_give_the_same_value(case):
    annotation, value = case
    assert same(of(annotation, value), value)
    assert same(
        convert(
            read_annotation(ast.parse(annotation, mode="eval").body), json.loads(json.dumps(as_json(value)))
        ),
        value,
    )


@given(st.text())
def test_text_for_str_is_taken_as_it_is_and_never_runs(text):
    assert of("str", Text(text)) == text == of("str", text)


@given(st.text(alphabet="0123456789-+.,eEinf_ nul[]{}\"'truefals", max_size=12))
def test_any_text_is_either_of_the_type_or_refused_with_the_accepted_type(text):
    for annotation, kind in (
        ("int", int),
        ("float", float),
        ("bool", bool),
        ("date", date),
        ("list[int]", list),
    ):
        try:
            assert type(of(annotation, Text(text), default="1")) is kind
        except ConfigError as error:
            assert annotation in str(error) and "step 'step': the parameter 'value' is" in str(error)


def test_not_a_number_and_infinity_reach_the_notebook():
    assert math.isnan(of("float", Text("nan"))) and of("float", Text("-inf")) == -math.inf
    assert of("list[float]", [1, math.inf]) == [1.0, math.inf]


def test_what_papermill_gets_wrong():
    """papermill makes 7 of 007, text of a list, and does not know a parameter whose annotation is in quotes."""
    assert of("str", Text("007")) == "007"
    assert of("list[int]", Text("[1,2]")) == [1, 2] == of("list[int]", Text("1,2"))
    assert of("'str|None'", Text("x")) == "x" and of("'str|None'", Text("null")) is None
    assert of("datetime.date", Text("2013-01-31")) == date(2013, 1, 31)
    assert of("dt.datetime", Text("2013-01-31T05:00:00+02:00")).utcoffset().total_seconds() == 7200


def test_a_cell_that_computes_its_defaults():
    notebook = a_notebook(
        "import os\n%load_ext autoreload\nfolder = os.getcwd()\nrows = 60 * 60  # a second each, 1..\n"
        "first, *rest = range(3)\nfor n in range(2):\n    last = n\nwith open('x') as file:\n    text: str = file.read()"
    )
    found = {one.name: one.describe() for one in declared(notebook)}
    assert found["folder"]["default"] == "os.getcwd()" and found["folder"]["computed"]
    assert found["rows"] == {
        "name": "rows", "type": "any", "default": "60 * 60", "computed": True, "bounds": "",
        "comment": "a second each, 1..",
    }  # fmt: skip
    assert list(found) == ["folder", "rows", "first", "last", "text"] and found["text"]["type"] == "str"
    step = SimpleNamespace(name="step", params={"folder": "/tmp", "rows": 7}, secrets=[])
    assert resolve({"step": (step, notebook)}, {})["step"] == {"folder": "/tmp", "rows": 7}


@pytest.mark.parametrize(("suffix", "text"), [
    ("toml", 'depth = 6\n["50_train"]\nfirst = 2013-05-01\n"60_score.depth" = 8'),
    ("json", '{"depth": 6, "50_train": {"first": "2013-05-01"}, "60_score.depth": 8}'),
    ("yaml", 'depth: 6\n50_train:\n  first: 2013-05-01\n60_score.depth: 8'),
])  # fmt: skip
def test_a_file_of_parameters(tmp_path, suffix, text):
    text = text.replace('\n"60_score.depth" = 8', "").replace("depth = 6", 'depth = 6\n"60_score.depth" = 8')
    (tmp_path / f"params.{suffix}").write_text(text)
    overrides = read_overrides(["60_score.depth=9"], tmp_path / f"params.{suffix}")
    train = SimpleNamespace(name="50_train", params={"depth": 5}, secrets=[])
    score = SimpleNamespace(name="60_score", params={}, secrets=[])
    notebook = a_notebook("depth: int = 1\nfirst: date | None = None")
    steps = {"50_train": (train, notebook), "60_score": (score, notebook)}
    expected = {"50_train": {"depth": 6, "first": date(2013, 5, 1)}, "60_score": {"depth": 9}}
    assert resolve(steps, overrides) == expected
    assert resolve(steps, read_overrides(["depth=9"], tmp_path / f"params.{suffix}"))["60_score"] == {
        "depth": 9
    }


def test_checking_loads_neither_kernels_nor_frames_nor_models():
    code = (
        "import sys, mlworkbench.flow.parameters\n"
        "print([m for m in ('pydantic', 'polars', 'nbformat', 'jupyter_client', 'papermill', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_papermill_runs_and_inspects_a_cell_with_annotations(tmp_path):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook
    from papermill import execute_notebook, inspect_notebook

    cell = (
        "from datetime import date\nfrom typing import Annotated, Literal\n"
        "from annotated_types import Ge, Le\n"
        "depth: Annotated[int, Ge(1), Le(12)] = 4  # tree depth\nmetric: Literal['auc', 'loss'] = 'auc'\n"
        "first: 'date | None' = None\nmonths: list[int] = [1, 2]  # 1..12"
    )
    shown = new_code_cell("print(depth, metric, first, months)")
    notebook = new_notebook(cells=[new_code_cell(cell, metadata={"tags": ["parameters"]}), shown])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    assert list(inspect_notebook(str(tmp_path / "in.ipynb"))) == ["months"]  # the others it does not see
    done = execute_notebook(
        str(tmp_path / "in.ipynb"),
        None,
        {"depth": 6, "months": [3]},
        kernel_name="python3",
        progress_bar=False,
    )
    assert done.cells[-1].outputs[0].text == "6 auc None [3]\n"
    ours = injected_code(json.loads(json.dumps(notebook)), {"depth": 6, "first": date(2013, 5, 1)})
    notebook.cells.insert(1, new_code_cell(ours, metadata={"tags": ["injected-parameters"]}))
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = execute_notebook(str(tmp_path / "in.ipynb"), None, {}, kernel_name="python3", progress_bar=False)
    assert done.cells[-1].outputs[0].text == "6 auc 2013-05-01 [1, 2]\n"

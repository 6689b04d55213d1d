"""The house rules that a person would otherwise have to check by eye."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted(p for p in (ROOT / "nbs").glob("[0-9]*/*.ipynb"))
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
RUNS_NOTEBOOKS = ("core", "report", "flow", "schedule", "cli")
HEAVY = [
    "torch", "lightgbm", "pandas", "plotly", "ipywidgets", "papermill",
    "label_studio_sdk", "sklearn", "duckdb", "polars", "pydantic",
]  # fmt: skip


def cells(notebook, kind="code"):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def module_of(notebook):
    found = re.search(r"^#\|\s*default_exp\s+(\S+)", "\n".join(cells(notebook)), re.M)
    return found.group(1) if found else None


def rank_of(notebook):
    return int(notebook.parent.name[:2]), int(notebook.name[:2])


def imported_modules(path, package):
    "Every mlworkbench module that a file imports, at its top or inside a function."
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mlworkbench."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.startswith("mlworkbench"):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)


def test_imports_only_run_downwards():
    ranks = {
        f"mlworkbench.{module_of(notebook)}": rank_of(notebook) for notebook in LIBRARY if module_of(notebook)
    }
    assert len(ranks) > 20 and len(set(ranks.values())) == len(ranks), "two notebooks share a number"
    wrong = []
    for module, rank in ranks.items():
        path = ROOT / (module.replace(".", "/") + ".py")
        for target in imported_modules(path, module.split(".")[:-1]):
            if target != module and target in ranks and ranks[target] >= rank:
                wrong.append(f"{module} imports {target}, which stands above it")
            room = module.split(".")[1]
            if room in ("flow", "schedule") and target in ranks and target.split(".")[1] not in RUNS_NOTEBOOKS:
                wrong.append(f"{module} imports {target}: what runs notebooks knows no model")
    assert not wrong, "\n".join(wrong)


def test_pipelines_do_not_import_each_other():
    for notebook in (ROOT / "nbs/pipelines").rglob("*.ipynb"):
        assert "mlworkbench.pipelines" not in "\n".join(cells(notebook)), notebook


def tracked_files():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).exists()]


def test_a_fresh_export_leaves_no_diff(tmp_path):
    for name in tracked_files():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    bin_folder = Path(sys.executable).parent
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([bin_folder / command], cwd=tmp_path, check=True, capture_output=True)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    changed = [str(p.relative_to(tmp_path)) for p in {*before, *after} if before.get(p) != after.get(p)]
    assert not changed, f"run `nbdev_clean && nbdev_export`: {sorted(changed)}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_notebooks_are_clean(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code), "outputs are committed"
    assert not re.search(r"^\s*from \S+ import \*", "\n".join(cells(notebook)), re.M), "star import"
    assert len(content["cells"]) <= 60


@pytest.mark.parametrize(
    "notebook", sorted((ROOT / "nbs/pipelines").rglob("*.ipynb")), ids=lambda path: path.stem
)
def test_pipeline_notebooks_read_as_reports(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert "parameters" in code[0]["metadata"].get("tags", []), "the first code cell is tagged parameters"
    assert content["cells"][0]["cell_type"] == "markdown" and content["cells"][0]["source"][0].startswith(
        "# "
    )
    assert 5 <= len(code) - 2 <= 12 or notebook.parent.name == "blank", f"{len(code)} code cells"
    for cell in code:
        tree = ast.parse("".join(cell["source"]))
        long = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 5
        ]
        assert not long, "functions longer than 5 lines belong in the library"


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, mlworkbench; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_nothing_unpickles_and_no_path_of_one_machine_is_written():
    for name in tracked_files():
        path = ROOT / name
        if path.suffix in (".py", ".ipynb", ".md", ".toml", ".yml") and name != "tests/test_house.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"pickle\.load\(|joblib\.load\(|torch\.load\(", text), name
            assert not re.search(r"/home/\w+/|/Users/\w+/|/work/", text), (
                f"{name} names a path of one machine"
            )


def test_the_readme_is_the_index_notebook():
    from nbconvert import MarkdownExporter

    body, _ = MarkdownExporter().from_filename(ROOT / "nbs/index.ipynb")
    body = body.replace("](images/", "](nbs/images/")
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() == body.strip(), "run `make readme`"
    assert (ROOT / "nbs/images/report.png").exists() and body.count("\n") < 110  # two screens

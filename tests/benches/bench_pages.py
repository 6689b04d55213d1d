"""A page of ten plotly figures, and one of 300 cells: time to write, size, time to the first figure from file://.

The peer is nbconvert's own HTML of the same notebook: as it comes, and with plotly.js embedded by the notebook itself
(plotly's renderer "notebook"). Its page asks a content network for scripts; here, as in a mail client, it gets none.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from measure import seconds
from playwright.sync_api import Error, sync_playwright

from mlworkbench.report.page import render_page

FLAGS = "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking"
FIRST = """const look = () => {
  const at = document.querySelector(".js-plotly-plot .main-svg .scatterlayer path")
  at ? window.firstFigure = performance.now() : requestAnimationFrame(look)
}
requestAnimationFrame(look)"""  # from navigation on
FIGURE = """import numpy as np, plotly.graph_objects as go
rng = np.random.default_rng({number})
x = np.linspace(0, 1, 400)
go.Figure([go.Scatter(x=x, y=np.cumsum(rng.normal(size=400)), name=name) for name in ("ours", "rule", "chance")],
          layout={{"title": {{"text": "Figure {number}"}}}})"""
ROUNDS = 5


def notebook(path, sources, renderer):
    "A notebook of these cells, executed with one of plotly's renderers."
    cells = [
        {"cell_type": "markdown", "id": f"m{i}", "metadata": {}, "source": source}
        if source.startswith("#")
        else {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source, "outputs": []}
        | {"execution_count": None}
        for i, source in enumerate(sources)
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "python3"}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}))
    execute = (
        f"import os; os.environ['PLOTLY_RENDERER'] = '{renderer}'; from nbclient.cli import main; main()"
    )
    subprocess.run([sys.executable, "-c", execute, "--inplace", path], check=True, capture_output=True)
    return path


def nbconverted(path):
    "Stock nbconvert's page, by its Python API."
    from nbconvert import HTMLExporter

    warnings.simplefilter("ignore")  # that it cannot show a figure
    out = path.with_suffix(".nbconvert.html")
    out.write_text(HTMLExporter().from_filename(str(path))[0])
    return out


def first_figure(browser, page, wait_s=15):
    "Milliseconds from navigation to the first drawn curve; how many requests the page makes; None: never drawn."
    times, asked = [], set()
    for _ in range(ROUNDS):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True)
        context.route("http*://**", lambda route: route.abort())  # a mail client's attachment: no network
        tab = context.new_page()
        tab.on("request", lambda request: asked.add(request.url) if request.url.startswith("http") else None)
        tab.add_init_script(FIRST)
        tab.goto(page.as_uri(), wait_until="commit")
        try:
            times.append(tab.wait_for_function("window.firstFigure", timeout=wait_s * 1000).json_value())
        except Error:
            times.append(None)
        context.close()
        if times[-1] is None:
            break
    return (statistics.median(times) if None not in times else None), len(asked)


def line(name, wrote, page, shown=None):
    first, asked = shown or (None, None)
    said = (
        "" if shown is None else f"first figure {f'{first:,.0f} ms' if first else 'never'}, {asked} requests"
    )
    print(f"{name:<44} written in {wrote * 1000:6,.0f} ms  {page.stat().st_size / 1e6:6.2f} MB  {said}")
    return first


def main():
    folder = Path(tempfile.mkdtemp(prefix="pages-"))
    figures = ["# Ten figures", *(FIGURE.format(number=i) for i in range(10))]
    ours = notebook(folder / "ten.ipynb", figures, "plotly_mimetype")
    theirs = notebook(folder / "embedded.ipynb", figures, "notebook")
    table = "import polars as pl\npl.DataFrame({'x': range(200), 'y': [0.5] * 200})"
    long = [part for i in range(100) for part in (f"## Part {i}\n\nSome words on it.", table, f"print({i})")]
    many = notebook(folder / "long.ipynb", ["# Long", *long, *figures[1:]], "plotly_mimetype")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS.split())
        page = render_page(ours, folder / "ten.html")
        shown = first_figure(browser, page)
        assert shown[0] is not None and shown[1] == 0, "our page must be drawn without a request"
        line("mlworkbench", seconds(render_page, ours, page), page, shown)
        for name, source in (("nbconvert", ours), ("nbconvert, plotly.js in the notebook", theirs)):
            peer = nbconverted(source)
            line(name, seconds(nbconverted, source), peer, first_figure(browser, peer))
        page, peer = render_page(many, folder / "long.html"), nbconverted(many)
        line("mlworkbench, 310 cells", seconds(render_page, many, page), page)
        line("nbconvert, 310 cells", seconds(nbconverted, many), peer)
        for name, html in (("mlworkbench", page), ("nbconvert", peer)):
            print(f"{name}: 310 cells are laid out in {laid_out(browser, html):,.0f} ms")
        browser.close()
    shutil.rmtree(folder)


def laid_out(browser, page):
    "Milliseconds until the document is parsed and laid out, scrolled to its end."
    times = []
    for _ in range(ROUNDS):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True)
        context.route("http*://**", lambda route: route.abort())
        tab = context.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="domcontentloaded")
        tab.evaluate("scrollTo({top: document.documentElement.scrollHeight, behavior: 'instant'})")
        times.append((time.perf_counter() - start) * 1000)
        context.close()
    return statistics.median(times)


if __name__ == "__main__":
    main()

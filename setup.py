"""Reads settings.ini, the single source of name, version and requirements."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

extras = {
    key.removesuffix("_requirements"): settings[key].split()
    for key in settings
    if key.endswith("_requirements")
}

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8")
    if (here / "README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    author=settings["author"],
    url=settings["git_url"],
    license="Apache-2.0",
    keywords=settings["keywords"].split(),
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
    ],
    packages=find_packages(include=["mlworkbench", "mlworkbench.*"]),
    # the pipeline notebooks: mlworkbench/pipelines is a link to nbs/pipelines, so there is one copy
    package_data={
        "mlworkbench": [
            *(f"pipelines/**/*.{kind}" for kind in ("ipynb", "toml", "csv", "md")),
            "report/assets/*",
            "widgets/assets/*",
        ]
    },
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "papermill.engine": ["mlworkbench=mlworkbench.flow.papermill:PapermillEngine"],
        "nbconvert.exporters": ["mlworkbench=mlworkbench.report.exporter:PageExporter"],
    },
    zip_safe=False,
)

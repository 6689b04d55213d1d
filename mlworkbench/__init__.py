"""A notebook-first interactive workbench for machine-learning systems."""

__version__ = "0.1.0"
__all__ = ["LabelReview", "Project", "Store", "WorkbenchError", "step", "watch"]

_HOMES = {  # imported on first use, so that `import mlworkbench` and the command line stay fast
    "LabelReview": "mlworkbench.widgets.label_review",
    "Project": "mlworkbench.core.project",
    "Store": "mlworkbench.core.store",
    "WorkbenchError": "mlworkbench.core.errors",
    "step": "mlworkbench.core.project",
    "watch": "mlworkbench.widgets.watch",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'mlworkbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__():
    return sorted([*globals(), *_HOMES])

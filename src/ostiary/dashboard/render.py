"""Templates into text: everything that comes from elsewhere is escaped, and a name that is not there is an error."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from ostiary.dashboard import words
from ostiary.dashboard.assets import Assets
from ostiary.providers.catalog import Catalog

_TEMPLATES: Final = Path(__file__).with_name("templates")


class Renderer:
    """Compiles a template at its first use and keeps it."""

    def __init__(self, assets: Assets, catalog: Catalog) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=-1,
        )
        self._templates.filters |= {
            "usd": words.usd,
            "usd_exact": words.usd_exact,
            "number": words.number,
            "short": words.short,
            "percent": words.percent,
            "lasting": words.lasting,
            "date": words.date,
            "exact": words.exact,
            "ago": _ago,
        }
        self._templates.globals |= {
            "asset": assets.url,
            "fill": words.fill,
            "level": words.LEVELS,
            "version": version("ostiary"),
            "provider_name": lambda id: catalog.providers[id].name if id in catalog.providers else id,
        }

    def text(self, template: str, context: dict[str, Any]) -> str:
        """The page or part of this name."""
        return self._templates.get_template(template).render(context)


@pass_context
def _ago(context: Context, at: int | None, otherwise: str = "never") -> Markup | str:
    """A time as people think of it, with the exact one on hover."""
    if at is None:
        return otherwise
    exact = words.exact(at)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.replace(" UTC", "Z").replace(" ", "T"), exact, words.relative(at, context["now"])
    )

"""Render templates as text, whatever types a DAG asks for."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import jinja2


def render_as_text(template: jinja2.Template, context: Any) -> str:
    """Render a template as text, even if the DAG renders native Python types.

    Native types would turn identifiers into numbers: ``+442079460958`` would lose its plus, ``02110`` fail, ``0x1F``
    become 31.
    """
    environment, known = template.environment, cast("dict[str, Any]", copy(context))
    known.update({name: value for name, value in template.globals.items() if name not in known})
    scope = environment.context_class(environment, known, template.name, template.blocks)
    return "".join(map(str, template.root_render_func(scope)))

"""Our docstrings as the site shows them: lines that say what a name means become a list.

    "k:      how many\nwhere:  SQL over ..." -> "* **k**: how many\n* **where**: SQL over ..."

A griffe extension, named in mkdocs.yml. In the source such lines stand in columns, which is how
they are read there; Markdown would run them together.
"""

import re
from typing import Any

import griffe

# "k:  how many", "include, exclude: globs"; a sentence that ends in a colon is none.
_NAMED = re.compile(r"^(?P<names>\w+(?:, \w+)*):\s+(?P<told>\S.*)$")


class Names(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ANN401  griffe's
        """Rewrite the docstring of a module, a class, a function or an attribute."""
        if obj.docstring:
            obj.docstring.value = as_list(obj.docstring.value)


def as_list(text: str) -> str:
    """Return a docstring with its columns of names as a Markdown list."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        named = _NAMED.match(line)
        if named and named["names"] not in ("Examples", "Raises", "Args", "Returns"):
            if not inside and lines and lines[-1].strip():
                lines.append("")
            lines.append(f"* **{named['names']}**: {named['told']}")
            inside = True
        elif inside and line.startswith(" ") and line.strip():
            lines.append(f"    {line.strip()}")
        else:
            if inside and line.strip():
                lines.append("")
            inside = False
            lines.append(line)
    return "\n".join(lines)

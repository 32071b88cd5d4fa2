"""``index.json``: what this folder is and which embedding space fills it.

It is written last when an index is made, so a folder with one is a whole index; and
replacing it is the one commit point of whatever changes an index as a whole.
"""

import json
import re
import shlex
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmsearch.errors import StoreDamaged, StoreNotFound
from mmsearch.retriever.store.durable import write_file
from mmsearch.values import Space

NAME = "index.json"
SCHEMA_VERSION = 2
DATA = re.compile(r"\.|generation-[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an index says of itself.

    data: the folder below its own in which its tables and its media lie. Another one is
          filled while this one answers (a rebuild, a new schema), and naming it here is
          the moment at which it takes over
    """

    space: Space
    schema_version: int = SCHEMA_VERSION
    mmsearch_version: str = ""
    created: str = ""
    data: str = "."


def index_folder(home: Path) -> Path:
    """Return the folder that people name, of a data folder: that of the index."""
    return home.parent if DATA.fullmatch(home.name) else home


def write_header(folder: Path, header: Header) -> Header:
    """Make ``folder`` an index, or let it say something else; return what was written."""
    from importlib.metadata import version

    header = replace(
        header,
        mmsearch_version=version("mmsearch"),
        created=header.created or datetime.now(UTC).isoformat(timespec="seconds"),
    )
    content = json.dumps(asdict(header) | {"space_id": header.space.id}, indent=2) + "\n"
    write_file(folder / NAME, content.encode())
    return header


def read_header(folder: Path) -> Header:
    """Return what the index in ``folder`` says of itself.

    Raises StoreNotFound where there is none, StoreDamaged where it cannot be read or
    was written by a newer mmsearch.
    """
    try:
        content = json.loads((folder / NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise StoreNotFound(folder) from None
    except OSError as error:
        raise StoreDamaged(folder, f"{NAME} is unreadable ({error.strerror})") from error
    except ValueError as error:
        raise StoreDamaged(folder, f"{NAME} is not JSON ({error})") from error
    try:
        if "format" in content:
            export = StoreDamaged(folder, "it is an export and no index")
            export.hint = f"mmsearch import {shlex.quote(str(folder))} --db DIR"
            raise export
        version = content["schema_version"]
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"schema version {version!r}")
        if version > SCHEMA_VERSION:
            raise StoreDamaged(
                folder,
                f"it was written by mmsearch {content.get('mmsearch_version')} "
                f"(schema {version}, this one reads up to {SCHEMA_VERSION})",
            )
        space = read_space(content["space"])
        data = content.get("data", ".")  # schema 1 had none
        if not isinstance(data, str) or not DATA.fullmatch(data):
            raise ValueError(f"data folder {data!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamaged(folder, f"{NAME} is incomplete ({error!r})") from error
    return Header(
        space=space,
        schema_version=version,
        mmsearch_version=str(content.get("mmsearch_version", "")),
        created=str(content.get("created", "")),
        data=data,
    )


def read_space(content: Any) -> Space:  # noqa: ANN401  whatever JSON holds
    """Return the space of a header; raises KeyError, TypeError or ValueError where it is none."""
    space = Space(**{field.name: content[field.name] for field in fields(Space)})
    if type(space.dim) is not int or space.dim < 1:
        raise ValueError(f"dimension {space.dim!r}")
    return space

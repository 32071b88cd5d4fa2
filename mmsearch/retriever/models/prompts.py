"""What is put before the words of an item, by the side of the search it stands on."""

from dataclasses import dataclass

from mmsearch.values import Role


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prefixes of a model; empty for a symmetric one. They are part of its space."""

    query: str = ""
    document: str = ""

    def of(self, role: Role) -> str:
        """Return the prefix of that side."""
        return self.query if role is Role.QUERY else self.document

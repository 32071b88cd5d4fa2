"""How an item is written out for a model: the words around it, by side of the search.

Prompts     prefixes of queries and documents, the "instructions" of the papers
ChatFormat  the conversation of a chat model that an item becomes
"""

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


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The text that an item becomes, special tokens spelled out.

    template: holds ``{prompt}`` at most once, and either ``{parts}`` (the item in its own
              order) or ``{visuals}`` and ``{text}`` (pictures first, as most were trained)
    image:    what stands for a picture; its one pad token becomes as many as it has features
    video:    what stands for a film, likewise
    anchor:   the token whose last occurrence is the semantic anchor; empty for none
    wordless: what stands for the words of an item that has none, such as a lone picture
    wordless_film: the same for one of films alone; ``wordless`` where it is empty
    visual_positions: whether features lie in rows and columns (M-RoPE); False counts each
              as a word, which is how VLM2Vec and GME were trained

    A template without its places is a ValueError.
    """

    template: str = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{prompt}{parts}<|im_end|>\n<|im_start|>assistant\n"
    )
    image: str = "<|vision_start|><|image_pad|><|vision_end|>"
    video: str = "<|vision_start|><|video_pad|><|vision_end|>"
    anchor: str = ""
    wordless: str = ""
    wordless_film: str = ""
    visual_positions: bool = True

    def __post_init__(self) -> None:
        held = [name for name in ("parts", "visuals", "text") if f"{{{name}}}" in self.template]
        if held not in (["parts"], ["visuals", "text"]):
            raise ValueError("a template holds {parts}, or {visuals} and {text}")
        for name in ("prompt", *held):
            if self.template.count(f"{{{name}}}") > 1:
                raise ValueError(f"a template holds {{{name}}} once")

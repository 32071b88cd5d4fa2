"""The tokens that a reasoner says itself, and words that are to stay words beside them."""

import re
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.retriever.seams import Backbone, Batch, Cache

# PLUME's own tokens; a vocabulary that lacks one would read its letters instead, in silence.
SPELLED = ("<gen_emb>", "<disc_emb>", "<bot>", "<eot>", "<ct>")
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no tokenizer takes


def special_spellings(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Return what finds the first character of everything that spells a special token.

    Every added token counts, whether or not it is marked as special: a readout token is
    often added as an ordinary one.
    """
    spelled = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    # Longest first is not needed: one that begins another is broken by the same space.
    any_of = "|".join(re.escape(one) for one in spelled) or "(?!)"
    return re.compile(f"(?=(?:{any_of}))(.)")


def as_words(text: str, spellings: re.Pattern[str]) -> str:
    """Return a text of somebody's in which nothing is a special token, "< |im_end|>"."""
    return spellings.sub(r"\1 ", SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text))


def forced_tokens(backbone: Backbone[Batch, Cache], text: str) -> tuple[int, ...]:
    """Return the ids of a text that is put into a model's mouth.

    Raises ValueError where the text is empty, or names a token that the vocabulary lacks.
    """
    for token in SPELLED:
        if token in text:
            single_token(backbone, token)
    ids = tuple(backbone.tokens(text))
    if not ids:
        raise ValueError("a text that is read out needs a token")
    return ids


def single_token(backbone: Backbone[Batch, Cache], text: str) -> int:
    """Return the id of a special token; ValueError where the vocabulary lacks it."""
    ids = backbone.tokens(text)
    if len(ids) != 1:
        raise ValueError(f"the vocabulary has no token {text!r}")
    return ids[0]


def ids_on(device: torch.device, ids: Sequence[int]) -> Tensor:
    """Return token ids ``[m]`` on ``device``, without waiting for the work that is under way.

    A buffer of the module would do as well, if it survived being built on "meta".
    """
    tensor = torch.tensor(ids, dtype=torch.long)
    if device.type == "cuda":  # a copy from pageable memory would wait for the device
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

"""What PLUME's suffix says in training: what is left of the rationale, the answer, the readout.

    Side, Stage -> SuffixWriter.write -> SuffixBatch (ids, which are real, where to read out)

The last stage forces the same tokens as embedding does, to the token. A side without a
rationale gets them at every stage, and is not asked to predict them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmsearch.retriever.models.vocabulary import as_words, special_spellings
from mmsearch.retriever.training.examples import Side
from mmsearch.retriever.training.objective import Stage
from mmsearch.retriever.training.rationales import segments


@dataclass(frozen=True, slots=True)
class SuffixForm:
    """The pieces of a suffix, in order; ``{}`` stands for the words.

    after: what a conversation goes on with behind the readout: learnt, never forced
    """

    opening: str = "<eot>"
    rationale: str = "{}"
    closing: str = "</think>"
    answer: str = "<answer>{}</answer>"
    readout: str = "\n<gen_emb>"
    after: str = "<|im_end|>\n"

    def spell(self, rationale: str = "", answer: str = "") -> str:
        """Return the text up to the readout token."""
        text = self.opening + (rationale and self.rationale.replace("{}", rationale))
        return text + self.closing + (answer and self.answer.replace("{}", answer)) + self.readout


PUBLISHED = SuffixForm()  # PLUME's, which UME-R1's written thoughts have too


class SuffixBatch(NamedTuple):
    """The suffixes of several sides, right-padded.

    ids:     ``[B, m]``
    mask:    ``[B, m]``, False at padding
    readout: ``[B]``, the place of the readout token
    is_told: ``[B]``, whether its tokens are to be predicted
    """

    ids: Tensor
    mask: Tensor
    readout: Tensor
    is_told: Tensor


class SuffixWriter:
    """Writes suffixes in the words of one model.

    A model whose suffix is the published one speaks PLUME's form, and its pieces merge as
    they do in one text. Any other vocabulary says what it has between the first tokens of
    its own suffix and the last, which is the readout.

    suffix:   the ids that the reasoner forces in embedding
    count:    segments of a rationale
    max_tokens: a rationale, or an answer, of more is cut at its end
    """

    def __init__(
        self,
        backbone: Any,  # noqa: ANN401 - any Backbone, and its tokenizer
        suffix: Sequence[int],
        *,
        count: int,
        max_tokens: int,
        form: SuffixForm = PUBLISHED,
    ) -> None:
        self.backbone, self.suffix = backbone, tuple(suffix)
        self.count, self.max_tokens, self.form = count, max_tokens, form
        self.spellings = special_spellings(backbone.tokenizer)
        self.is_published = tuple(backbone.tokens(form.spell())) == self.suffix
        self.after: tuple[int, ...] = ()
        if self.is_published and backbone.tokenizer.token_to_id("<|im_end|>") is not None:
            self.after = tuple(backbone.tokens(form.after))

    def write(self, sides: Sequence[Side], stage: Stage, *, device: torch.device) -> SuffixBatch:
        """Return the suffixes of ``sides`` in that stage."""
        is_told = [bool(side.rationale.strip()) for side in sides]
        read = [
            self.tokens(side, stage) if told else self.suffix
            for side, told in zip(sides, is_told, strict=True)
        ]
        whole = [(*ids, *self.after) for ids in read]
        length = max(len(ids) for ids in whole)
        rows = torch.tensor([[*ids, *[0] * (length - len(ids))] for ids in whole])
        lengths = torch.tensor([len(ids) for ids in whole])
        return SuffixBatch(
            rows.to(device),
            (torch.arange(length) < lengths[:, None]).to(device),
            torch.tensor([len(ids) - 1 for ids in read], device=device),
            torch.tensor(is_told, device=device),
        )

    def tokens(self, side: Side, stage: Stage) -> tuple[int, ...]:
        """Return the tokens up to the readout of a side that has a rationale."""
        left = round(stage.text_left * self.count)
        rationale = ""
        if left:
            pieces = segments(self._words(side.rationale), self.count)
            rationale = "".join(pieces[self.count - left :])
        answer = self._words(side.answer) if stage.has_answer else ""
        if self.is_published:
            return tuple(self.backbone.tokens(self.form.spell(rationale, answer)))
        words = (self.backbone.tokens(text) for text in (rationale, answer) if text)
        return (*self.suffix[:-1], *(one for ids in words for one in ids), self.suffix[-1])

    def _words(self, text: str) -> str:
        """Return a text in which nothing is a special token, cut where it is too long."""
        text = as_words(text.strip(), self.spellings)
        encoding = self.backbone.tokenizer.encode(text, add_special_tokens=False)
        if len(encoding.ids) <= self.max_tokens:
            return text
        end = encoding.offsets[self.max_tokens][0]
        return text[:end].strip()

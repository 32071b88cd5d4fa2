"""A model's own tokens, for whoever counts them or sends them instead of words.

name of a model -> model_tokens -> ModelTokens: how many a text is, what text some are
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from mmsearch.errors import BadCheckpoint, BadInput
from mmsearch.retriever.embedding.library import model_folder
from mmsearch.retriever.models.description import TOKENIZER_FILE


class ModelTokens:
    """The vocabulary of a model; several threads may use it at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()  # a published file may ask for both
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._size = tokenizer.get_vocab_size(with_added_tokens=True)
        added = tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token for token, one in added.items() if one.special)

    def count(self, texts: Sequence[str]) -> int:
        """Return how many tokens the texts are together, without what a prompt adds."""
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return sum(map(len, encoded))

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text that these tokens are, special ones left out.

        Raises BadInput for a number that is none of the model's tokens, and for tokens that
        are not as this model would cut their text: numbers of another model's vocabulary mean
        other words here, and nobody would see it from the vectors.
        """
        for token in tokens:
            if not 0 <= token < self._size:
                raise BadInput(f"{token} is none of the {self._size} tokens of this model")
        plain = [token for token in tokens if token not in self._special]
        text = self._tokenizer.decode(plain, skip_special_tokens=True)
        if self._tokenizer.encode(text, add_special_tokens=False).ids != plain:
            raise BadInput("these are not tokens as this model cuts a text")
        return text


def model_tokens(name_or_path: str | Path) -> ModelTokens:
    """Return the tokens of a model; raises ModelNotFound, and BadCheckpoint where it has none."""
    folder = model_folder(name_or_path)
    path = folder / TOKENIZER_FILE
    try:
        return ModelTokens(Tokenizer.from_file(str(path)))
    except Exception as error:  # tokenizers raises nothing narrower
        raise BadCheckpoint(folder, f"{TOKENIZER_FILE} cannot be read") from error

"""OpenAI's own client against ``mmsearch serve``: texts and pictures, one space, one batch.

    mmsearch serve &
    python examples/openai_client.py sample_corpus/files/images/*.jpg --say "a red lighthouse"

Every picture and every text of one call come back as vectors of one space, so that their
cosines say which picture shows what. The key of the server, if it has one, is read from
OPENAI_API_KEY.

    pip install openai
"""

import argparse
import base64
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openai import OpenAI, omit

Rows = np.ndarray[Any, np.dtype[np.float32]]


def picture(path: Path) -> dict[str, Any]:
    """Return a picture as a part of an input."""
    uri = f"data:image/*;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return {"type": "image_url", "image_url": {"url": uri}}


def embed(client: OpenAI, inputs: Sequence[Any], *, dimensions: int | None = None) -> Rows:
    """Return a unit row for each input: a text, a part, or a list of both.

    The client asks for base64 by itself, and decodes it: several times as fast as JSON numbers.
    """
    model = client.models.list().data[0].id  # that of the first index
    told = client.embeddings.create(model=model, input=list(inputs), dimensions=dimensions or omit)
    return np.array([one.embedding for one in told.data], dtype=np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, for each text, the pictures by their cosine."""
    parser = argparse.ArgumentParser(description="Which picture shows what is said?")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--say", nargs="+", required=True, metavar="TEXT")
    parser.add_argument("--base-url", default="http://127.0.0.1:7700/v1")
    parser.add_argument("--dimensions", type=int, help="fewer of the model's")
    asked = parser.parse_args(arguments)

    client = OpenAI(base_url=asked.base_url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
    inputs = [*asked.say, *(picture(path) for path in asked.pictures)]  # mixed in one batch
    rows = embed(client, inputs, dimensions=asked.dimensions)
    texts, pictures = rows[: len(asked.say)], rows[len(asked.say) :]

    print(f"{len(rows)} vectors of {rows.shape[1]} dimensions")
    for said, row in zip(asked.say, texts, strict=True):
        print(f"\n{said}")
        cosines = pictures @ row
        for place in np.argsort(-cosines, kind="stable"):
            print(f"  {cosines[place]:+.3f}  {asked.pictures[place].name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

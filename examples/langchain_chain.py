"""A LangChain chain whose sources are found by a running server.

    mmsearch serve --db /tmp/reports &
    python examples/langchain_chain.py "How many fire hydrants are there?"

    question -> MMSearchRetriever (POST /v1/search) -> prompt -> generator -> answer

The generator here is a stub that quotes the first source: put any chat model of LangChain in
its place. The key of the server, if it has one, is read from MMSEARCH_API_KEY.

    pip install 'mmsearch[langchain]'
"""

import argparse
import os
import sys
from collections.abc import Sequence

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from mmsearch.errors import MMSearchError
from mmsearch.integrations.langchain import MMSearchRetriever
from mmsearch.integrations.server import Server

PROMPT = ChatPromptTemplate.from_template(
    "Answer from the sources alone, and cite them.\n\n{sources}\n\nQuestion: {question}"
)


def told(found: list[Document]) -> str:
    """Return the sources as a prompt has them."""
    return "\n\n".join(f"[{one.metadata['citation']}]\n{one.page_content}" for one in found)


def stub(prompt: PromptValue) -> str:
    """Answer without any model: quote the beginning of the first source."""
    source = prompt.to_string().split("\n\n")[1]
    mark, _, words = source.partition("\n")
    return f"\u201c{' '.join(words.split())[:200]}...\u201d {mark}"


def chain_of(server: Server, *, k: int) -> Runnable[str, str]:
    """Return the chain; in the place of the stub goes any chat model."""
    retriever = MMSearchRetriever(engine=server, k=k)
    sources = {"sources": retriever | told, "question": RunnablePassthrough()}
    return sources | PROMPT | RunnableLambda(stub) | StrOutputParser()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer to a question."""
    parser = argparse.ArgumentParser(description="Answer a question through a server.")
    parser.add_argument("question")
    parser.add_argument("--server", default="http://127.0.0.1:7700")
    parser.add_argument("-k", type=int, default=3, help="how many sources")
    asked = parser.parse_args(arguments)

    server = Server(asked.server, api_key=os.environ.get("MMSEARCH_API_KEY"))
    try:
        print(chain_of(server, k=asked.k).invoke(asked.question))
    except MMSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

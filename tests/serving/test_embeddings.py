"""Vectors as OpenAI's clients ask for them: same numbers as the engine's, clear refusals."""

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import POISON, WORDS, WordEmbedder
from PIL import Image

from mmsearch.engine import Engine
from mmsearch.values import Item, Role

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from starlette.testclient import TestClient

from mmsearch.serving.app import make_app
from mmsearch.serving.settings import Limits, Settings

if TYPE_CHECKING:
    from mmsearch.values import Vectors


class PromptingEmbedder(WordEmbedder):
    """Embeds questions in another direction than documents, and knows the role."""

    def embed(self, items: Any, *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        vectors = super().embed(items, role=role)
        return vectors[:, ::-1].copy() if role is Role.QUERY else vectors


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    db = tmp_path_factory.mktemp("words") / "notes"
    Engine.open(db, create=True, model=WordEmbedder()).close()
    settings = Settings(dbs=(db,), model=PromptingEmbedder(), limits=Limits(max_inputs=100))
    with TestClient(make_app(settings), base_url="http://127.0.0.1:7700") as client:
        yield client


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of the model that comes with mmsearch."""
    db = tmp_path_factory.mktemp("default") / "pages"
    Engine.open(db, create=True).close()
    with TestClient(make_app(Settings(dbs=(db,))), base_url="http://127.0.0.1:7700") as client:
        yield client


def embed(client: TestClient, given: object, **fields: object) -> dict[str, Any]:
    answer = client.post("/v1/embeddings", json={"input": given, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def vectors_of(told: dict[str, Any]) -> "Vectors":
    assert [one["index"] for one in told["data"]] == list(range(len(told["data"])))
    return np.array([one["embedding"] for one in told["data"]], np.float32)


def refused(client: TestClient, body: object, status: int = 400) -> dict[str, Any]:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == status, answer.text
    error = dict(answer.json()["error"])
    assert set(error) == {"message", "type", "hint", "param", "code"}
    return error


def picture(colour: tuple[int, int, int]) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": uri}}


# ---------------------------------------------------------------- what comes back


def test_texts_come_back_in_openais_shape(client: TestClient) -> None:
    told = embed(client, ["a cat", "the dog"], model="words", user="me")

    assert {name: told[name] for name in ("object", "model")} == {
        "object": "list",
        "model": "words",
    }
    assert {one["object"] for one in told["data"]} == {"embedding"}
    assert told["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    np.testing.assert_array_equal(
        vectors_of(told), WordEmbedder().embed([Item("a cat"), Item("the dog")])
    )


def test_one_text_is_one_row(client: TestClient) -> None:
    assert vectors_of(embed(client, "a cat")).shape == (1, len(WORDS) + 4)


def test_base64_is_the_same_numbers_in_little_endian_float32(client: TestClient) -> None:
    plain = vectors_of(embed(client, ["a cat", "the dog"]))

    told = embed(client, ["a cat", "the dog"], encoding_format="base64")

    rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in told["data"]]
    np.testing.assert_array_equal(np.stack(rows), plain)


def test_dimensions_are_the_leading_ones_as_a_unit_vector(client: TestClient) -> None:
    whole = vectors_of(embed(client, "cat dog pump"))[0]

    [cut] = vectors_of(embed(client, "cat dog pump", dimensions=2))

    np.testing.assert_allclose(cut, whole[:2] / np.linalg.norm(whole[:2]), rtol=1e-6)


def test_questions_are_embedded_as_such_where_they_are_said_to_be(client: TestClient) -> None:
    document = vectors_of(embed(client, "cat"))
    question = vectors_of(embed(client, "cat", input_type="query"))

    np.testing.assert_array_equal(question, document[:, ::-1])


def test_texts_and_pictures_and_both_at_once_in_one_call(client: TestClient) -> None:
    red, words = picture((255, 0, 0)), {"type": "text", "text": "cat"}

    vectors = vectors_of(embed(client, [red, "cat", words, [red, words], ["cat", red]]))

    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[..., 0] = 255
    items = [Item([pixels]), Item("cat"), Item("cat"), Item([pixels, "cat"]), Item(["cat", pixels])]
    np.testing.assert_allclose(vectors, WordEmbedder().embed(items), atol=1e-6)


def test_models_are_named_as_they_may_be_asked_for(client: TestClient) -> None:
    names = [one["id"] for one in client.get("/v1/models").json()["data"]]

    assert names == ["words", "notes"]  # the model's, and that of its index
    first, second = (vectors_of(embed(client, "cat", model=name)) for name in names)
    np.testing.assert_array_equal(first, second)


def test_a_text_that_was_embedded_is_remembered(client: TestClient) -> None:
    def hits() -> float:
        lines = client.get("/metrics").text.splitlines()
        [line] = [one for one in lines if one.startswith("mmsearch_cache_hits_total")]
        return float(line.split()[1])

    embed(client, "a pump that nobody asked for yet")
    before = hits()
    embed(client, "a pump that nobody asked for yet")

    assert hits() == before + 1


# ---------------------------------------------------------------- the model that comes with us


def test_the_vectors_are_the_engines(default: TestClient) -> None:
    texts = ["rainfall by month", "a red bus at night"]
    engine = default.app.state.served.engine()  # type: ignore[attr-defined]

    told = embed(default, texts)

    np.testing.assert_allclose(vectors_of(told), engine.embed_documents(texts), atol=1e-6)
    assert told["usage"]["prompt_tokens"] == 3 + 5  # word pieces, none of them special


def test_tokens_of_the_model_are_the_text_they_are(default: TestClient) -> None:
    tokens = [1037, 2417, 3902]  # a red bus

    vectors = vectors_of(embed(default, [tokens, "a red bus"]))
    [alone] = vectors_of(embed(default, [101, *tokens, 102]))  # [CLS] and [SEP] are no words

    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    np.testing.assert_allclose(alone, vectors[1], atol=1e-6)


def test_tokens_of_another_model_are_refused(default: TestClient) -> None:
    error = refused(default, {"input": [[100_257]]})

    assert error["message"] == "input[0]: 100257 is none of the 30522 tokens of this model"
    assert "check_embedding_ctx_length=False" in error["hint"]
    # such as OpenAI's vocabulary gives to short words: all of them are in this one too
    error = refused(default, {"input": [[1820, 3430, 315, 264, 14155]]})
    assert error["message"] == "input[0]: these are not tokens as this model cuts a text"


def test_a_model_without_tokens_says_so(client: TestClient) -> None:
    error = refused(client, {"input": [[1, 2, 3]]})

    assert error["message"] == "input[0]: this model has no tokens of its own"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "input: Field required"),
        ({"input": []}, "input: it is neither a text nor a list with anything in it"),
        ({"input": {"text": "cat"}}, "input: it is neither a text nor a list"),
        ({"input": ""}, "input[0]: it is empty"),
        ({"input": ["cat", "  "]}, "input[1]: it is empty"),
        ({"input": ["cat", None]}, "input[1]: it is neither a text, nor tokens, nor parts"),
        ({"input": ["cat", []]}, "input[1]: it is neither a text, nor tokens, nor parts"),
        ({"input": ["cat", [{"type": "text", "text": " "}]]}, "input[1]: it is empty"),
        ({"input": [True]}, "input[0]: it is neither a text, nor tokens, nor parts"),
        ({"input": "cat", "dimensions": 10_000}, "dimensions: this model has 9, not 10000"),
        ({"input": "cat", "dimensions": 0}, "dimensions: Input should be greater than"),
        ({"input": "cat", "encoding_format": "hex"}, "encoding_format: Input should be"),
        ({"input": [{"type": "audio", "audio": "x"}]}, "input[0][0]: its type is none of"),
        (["cat"], "Input should be"),
    ],
)
def test_what_cannot_be_embedded_is_named(client: TestClient, body: object, said: str) -> None:
    error = refused(client, body)

    assert error["message"].startswith(said)
    assert error["type"] == "invalid_request_error"


def test_what_is_no_json_is_said_to_be_none(client: TestClient) -> None:
    for raw in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        answer = client.post(
            "/v1/embeddings", content=raw, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, raw[:10]


def test_more_inputs_than_allowed_are_refused(client: TestClient) -> None:
    assert vectors_of(embed(client, ["cat"] * 100)).shape[0] == 100
    assert "100 inputs" in refused(client, {"input": ["cat"] * 101}, 413)["message"]


def test_an_unknown_model_is_not_taken_for_ours(client: TestClient) -> None:
    error = refused(client, {"input": "cat", "model": "text-embedding-3-small"}, 404)

    assert error["message"] == (
        "no model named 'text-embedding-3-small'; GET /v1/models names them"
    )


def test_a_picture_that_is_none_is_refused_without_the_decoders_words(client: TestClient) -> None:
    broken = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 99).decode()

    error = refused(client, {"input": [{"type": "image_url", "image_url": {"url": broken}}]})

    assert error["message"].startswith("input[0][0]: it is")
    assert "/tmp" not in str(error)


def test_an_error_of_ours_says_nothing_but_that_there_was_one(client: TestClient) -> None:
    error = refused(client, {"input": POISON}, 500)

    assert error["message"] == "the server could not answer; its log says why"
    assert error["type"] == "server_error"

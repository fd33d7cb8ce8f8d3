"""Tests the official OpenAI client and gRPC from Python against the bundled pair."""

import hashlib
import json
import subprocess
import sys
import time

import openai
import pytest
from serving import ROOT, server

MODELS = ROOT / "models" / "default"
EXAMPLES = ROOT / "examples"
ASKED = {"model": "default", "max_tokens": 24, "seed": 7, "temperature": 0.7}
MESSAGES = [{"role": "user", "content": "A queue of tasks."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with server(MODELS, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


def run_example(name: str, address: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, address], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.rstrip().split("\n")


def test_openai_example(url):
    lines = run_example("openai_python.py", url)
    assert lines[-2].startswith("{'name': ") and lines[-1].startswith("publish {'name': ")


def test_grpc_example(url):
    host, port = url.removeprefix("http://").split(":")
    lines = run_example("grpc_client.py", f"{host}:{int(port) + 1}")
    assert lines[0].endswith("1024 tokens of context")
    assert lines[-2].startswith("60 tokens in ")
    assert lines[-1] == "INVALID_ARGUMENT in temperature: `temperature` must be in [0, 2], got 3"


def test_streams_equal_whole_answers(client):
    whole = client.completions.create(**ASKED, prompt="export class ", logprobs=2)
    pieces = list(client.completions.create(**ASKED, prompt="export class ", stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert whole.usage.completion_tokens == 24 and len(whole.choices[0].logprobs.token_logprobs) == 24
    plain = client.completions.create(**ASKED, prompt="export class ", extra_body={"ptp": {"draft": False}})
    assert plain.choices[0].text == whole.choices[0].text


def test_chat_and_responses_give_the_same_text(client):
    chat = client.chat.completions.create(**ASKED, messages=MESSAGES, logprobs=True, top_logprobs=3)
    assert len(chat.choices[0].logprobs.content) == 24
    asked = {name: value for name, value in ASKED.items() if name not in ("max_tokens", "seed")}
    more = {"input": MESSAGES, "max_output_tokens": 24, "extra_body": {"seed": 7}}
    events = list(client.responses.create(**asked, **more, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == chat.choices[0].message.content
    assert events[-1].type == "response.incomplete" and events[-1].response.usage.output_tokens == 24
    assert client.responses.create(**asked, **more).output_text == text


def test_response_formats_and_tools(client):
    asked = ASKED | {"max_tokens": 200}
    form = {"type": "json_schema", "json_schema": {"name": "queue", "schema": SCHEMA, "strict": True}}
    formed = client.chat.completions.create(**asked, messages=MESSAGES, response_format=form)
    value = json.loads(formed.choices[0].message.content)
    assert set(value) == {"name", "count"} and 0 <= value["count"] <= 99
    tool = {"type": "function", "function": {"name": "push", "parameters": SCHEMA}}
    with client.chat.completions.stream(
        **asked, messages=MESSAGES, tools=[tool], tool_choice="required", parallel_tool_calls=False
    ) as stream:
        completion = stream.get_final_completion()
    [call, *_] = completion.choices[0].message.tool_calls
    assert call.function.name == "push" and set(json.loads(call.function.arguments)) == {"name", "count"}


def test_errors_are_openais(client):
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(**ASKED | {"temperature": 3}, prompt="a")
    assert bad.value.param == "temperature" and "must be in [0, 2], got 3" in bad.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(**ASKED | {"model": "gpt"}, prompt="a")
    assert missing.value.code == "model_not_found"


def test_keys_limits_and_retries(tmp_path):
    keys = tmp_path / "keys.json"
    digest = hashlib.sha256(b"key of ada").hexdigest()
    keys.write_text(json.dumps([{"name": "ada", "sha256": digest, "requests_per_minute": 60, "max_streams": 1}]))
    with server(MODELS, tmp_path, PTP_API_KEYS_FILE=str(keys)) as url:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="key of eve", max_retries=0).models.list()
        ada = openai.OpenAI(base_url=f"{url}/v1", api_key="key of ada", max_retries=3)
        raw = ada.models.with_raw_response.list()
        assert raw.headers["x-ratelimit-limit-requests"] == "60"
        long = ada.completions.create(
            **ASKED | {"max_tokens": 900}, prompt="a", stream=True, extra_body={"ignore_eos": True}
        )
        with pytest.raises(openai.RateLimitError):
            ada.with_options(max_retries=0).completions.create(**ASKED, prompt="a")
        # Closing the stream frees its slot for the next request.
        next(iter(long))
        long.close()
        began = time.monotonic()
        assert ada.completions.create(**ASKED, prompt="a").usage.completion_tokens > 0
        assert time.monotonic() - began < 30

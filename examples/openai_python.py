"""The official OpenAI client for Python: streaming, JSON that matches a schema, and a tool call.

pip install openai; python examples/openai_python.py [http://127.0.0.1:8080]
"""

import json
import sys

import openai

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="any")
MODEL = "default"

# Streamed text
stream = client.completions.create(model=MODEL, prompt="export interface User {", max_tokens=60, seed=1, stream=True)
for chunk in stream:
    print(chunk.choices[0].text, end="", flush=True)
print()

# JSON that matches a schema
schema = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "private": {"type": "boolean"}},
    "required": ["name", "private"],
    "additionalProperties": False,
}
messages = [{"role": "user", "content": "A package."}]
structured = client.chat.completions.create(
    model=MODEL,
    messages=messages,
    response_format={"type": "json_schema", "json_schema": {"name": "package", "schema": schema, "strict": True}},
    max_tokens=100,
    seed=1,
)
print(json.loads(structured.choices[0].message.content))

# A tool call
called = client.chat.completions.create(
    model=MODEL,
    messages=messages,
    tools=[{"type": "function", "function": {"name": "publish", "parameters": schema}}],
    tool_choice={"type": "function", "function": {"name": "publish"}},
    max_tokens=100,
    seed=1,
)
call = called.choices[0].message.tool_calls[0]
print(call.function.name, json.loads(call.function.arguments))

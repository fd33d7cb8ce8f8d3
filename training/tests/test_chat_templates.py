"""The prompts that the gateway's tests compare with are the same as in transformers."""

import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

ROOT = pathlib.Path(__file__).parents[2]
FIXTURE = json.loads((ROOT / "test" / "fixtures" / "chat-templates.json").read_text(encoding="utf8"))


def with_parsed_arguments(message: dict) -> dict:
    """Returns the message with the arguments of its calls as objects, the form that templates expect."""
    calls = [
        call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    return message | ({"tool_calls": calls} if calls else {})


def test_prompts_are_those_of_transformers():
    rendered = 0
    for conversation in FIXTURE["conversations"]:
        messages = [with_parsed_arguments(message) for message in conversation["messages"]]
        for name, prompt in conversation["prompts"].items():
            [found], _ = render_jinja_template(
                conversations=[messages],
                tools=conversation.get("tools"),
                chat_template="\n".join(FIXTURE["templates"][name]),
                add_generation_prompt=True,
                bos_token="<|begin_of_text|>",
                eos_token="<|im_end|>",
                **conversation.get("variables", {}),
            )
            assert found == prompt, (name, conversation["name"])
            rendered += 1
    assert rendered >= 30

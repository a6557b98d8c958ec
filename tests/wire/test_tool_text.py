"""Calls that models write as text, in the forms of their families, and texts that are no calls."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from llm_localrun.errors import AnswerNotJson
from llm_localrun.servers.base import Server
from llm_localrun.wire.events import (
    CUT_OFF,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCall,
)
from llm_localrun.wire.request import ToolSpec
from llm_localrun.wire.response import ResponseContext, ResponseDecoder, ResponseHead
from llm_localrun.wire.tool_text import ToolText
from tests.support import six_tools
from tests.support.growth import is_linear
from tests.support.replies import (
    Outcome,
    at_once,
    chunk,
    decode,
    ollama,
    single_bytes,
    streamed,
    whole,
)
from tests.support.servers import OLLAMA, OPENAI

pytestmark = pytest.mark.pure


def tool(name: str, *required: str, **properties: Any) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": [*required]}
    return ToolSpec(name, f"What {name} does", schema)


TEXT = {"type": "string"}
WEATHER = tool(
    "get_weather", "city", city=TEXT, unit={"type": "string", "enum": ["celsius", "fahrenheit"]}
)
TIME = ToolSpec("current_time", "", {"type": "object", "properties": {}})
SUM = tool("sum_numbers", "numbers", numbers={"type": "array", "items": {"type": "number"}})
FILES = tool("search_files", "text", text=TEXT, folder=TEXT, limit={"type": "integer"})
LIST = tool("list_files", folder=TEXT)
TOOLS = (WEATHER, TIME, SUM, FILES, LIST)
PARIS = ("get_weather", {"city": "Paris"})
ROME = ("get_weather", {"city": "Rome"})
NOW: tuple[str, dict[str, Any]] = ("current_time", {})
OBJECT = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
LLAMA = '{"name": "get_weather", "parameters": {"city": "Paris"}}'


@dataclass(frozen=True)
class Written:
    """What a model writes, the calls that it means, and what of it stays text."""

    source: str
    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = (PARIS,)
    lead: str = ""
    reasoning: str = ""


def table(*rows: Written) -> list[Any]:
    return [pytest.param(row, id=f"{row.source} {at}") for at, row in enumerate(rows)]


# The sources say where the form is documented; the names and cities are this test's.
FAMILIES = [
    Written(
        "Qwen 2.5 Coder 0.5B, recorded",
        '```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```',
    ),
    Written(
        "Qwen 2.5 Coder 0.5B, recorded",
        '{"name": "current_time", "arguments": {"type": "object", "properties": {"type": "object",'
        ' "properties": {"date": {"type": "string"}}}}}',
        (NOW,),
    ),
    Written("Qwen 2.5: its template", f"<tool_call>\n{OBJECT}\n</tool_call>"),
    Written(
        "Qwen 3: its template",
        f"<think>\nParis, then.\n</think>\n\n<tool_call>\n{OBJECT}\n</tool_call>\n"
        '<tool_call>\n{"name": "current_time", "arguments": {}}\n</tool_call>',
        (PARIS, NOW),
        reasoning="Paris, then.\n",
    ),
    Written("Hermes 3: vLLM, test_hermes_tool_parser.py", f"<tool_call>{OBJECT}"),
    Written(
        "Qwen3-Coder: vLLM, test_qwen3coder_tool_parser.py",
        "I will look.\n\n<tool_call>\n<function=search_files>\n<parameter=text>\nto do\n"
        "</parameter>\n<parameter=limit>\n5\n</parameter>\n</function>\n</tool_call>",
        (("search_files", {"text": "to do", "limit": 5}),),
        "I will look.\n\n",
    ),
    Written(
        "Seed-OSS: vLLM, seed_oss_tool_parser.py",
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
        "</function>\n</seed:tool_call>",
    ),
    Written(
        "GLM 4.5: vLLM, test_glm4_moe_tool_parser.py",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>unit</arg_key>\n<arg_value>celsius</arg_value>\n</tool_call>",
        (("get_weather", {"city": "Paris", "unit": "celsius"}),),
    ),
    Written("GLM 4.5: without arguments", "<tool_call>current_time\n</tool_call>", (NOW,)),
    Written(
        "GLM 4.7: its template, after a lead",
        "I will check.<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
        "</tool_call><|observation|>",
        lead="I will check.",
    ),
    Written("Llama 3.1: llama.com/docs, JSON based", LLAMA),
    Written(
        "Llama 3.2: vLLM, llama_tool_parser.py",
        f"<|python_tag|>{LLAMA}; {LLAMA}<|eom_id|>",
        (PARIS, PARIS),
    ),
    Written("Llama 3.1: llama.com/docs, built in", '<|python_tag|>get_weather.call(city="Paris")'),
    Written(
        "Llama 3.1: llama.com/docs, custom", '<function=get_weather>{"city": "Paris"}</function>'
    ),
    Written(
        "Llama 4: vLLM, llama4_pythonic_tool_parser.py",
        "[get_weather(city='Paris'), current_time()]",
        (PARIS, NOW),
    ),
    Written(
        "Llama 4: its tokens",
        '<|python_start|>[get_weather(city="Paris")]<|python_end|><|eot|>',
    ),
    Written("Mistral 7B v0.3: vLLM, test_mistral_tool_parser.py", f"[TOOL_CALLS] [{OBJECT}]"),
    Written(
        "Mistral Small 3.2: vLLM, test_mistral_tool_parser.py",
        'I look.[TOOL_CALLS]get_weather[CALL_ID]abc12[ARGS]{"city": "Paris"}'
        '[TOOL_CALLS]get_weather{"city": "Rome"}',
        (PARIS, ROME),
        "I look.",
    ),
    Written("Mistral 2411: its tokens lost", 'get_weather{"city": "Paris"}'),
    Written(
        "Mistral 2411: some of its tokens lost",
        'get_weather[ARGS]{"city": "Paris"}current_time[ARGS]{}',
        (PARIS, NOW),
    ),
    Written(
        "DeepSeek V3 and R1: their template",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"  # noqa: RUF001
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',  # noqa: RUF001
    ),
    Written(
        "DeepSeek V3.1: Ollama, deepseek3_test.go",
        "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"  # noqa: RUF001
        '{"city":"Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜tool▁outputs▁begin｜>',  # noqa: RUF001
        lead="I look.",
    ),
    Written(
        "DeepSeek V3.2: vLLM, deepseekv32_tool_parser.py",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="search_files">\n'  # noqa: RUF001
        '<｜DSML｜parameter name="text" string="true">3</｜DSML｜parameter>\n'  # noqa: RUF001
        '<｜DSML｜parameter name="limit" string="false">3</｜DSML｜parameter>\n'  # noqa: RUF001
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>",  # noqa: RUF001
        (("search_files", {"text": "3", "limit": 3}),),
    ),
    Written(
        "Kimi K2: its tool_call_guidance.md",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
    ),
    Written("Kimi K2: its tokens lost", 'functions.get_weather:0{"city": "Paris"}'),
    Written(
        "Granite 3: vLLM, test_granite_tool_parser.py",
        f"<|tool_call|>[{OBJECT}, {OBJECT}]",
        (PARIS, PARIS),
    ),
    Written("Phi-4-mini: its model card", f"<|tool_call|>[{OBJECT}]<|/tool_call|>"),
    Written("Phi-4-mini: llama.cpp, test-chat.cpp", f" functools[{OBJECT}]"),
    Written(
        "Command R7B: transformers, test_tokenization_cohere",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters":'
        ' {"city": "Paris"}}\n]<|END_ACTION|><|END_OF_TURN_TOKEN|>',
    ),
    Written(
        "Command R: its model card",
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": {\n'
        '            "city": "Paris"\n        }\n    }\n]```',
    ),
    Written(
        "ReAct: LangChain's prompt",
        'Thought: I need the weather.\nAction: get_weather\nAction Input: {"city": "Paris"}',
        lead="Thought: I need the weather.\n",
    ),
    Written(
        "LangChain's structured chat",
        '```json\n{"action": "get_weather", "action_input": {"city": "Paris"}}\n```',
    ),
    Written("LM Studio's own: its docs", f"[TOOL_REQUEST]{OBJECT}[END_TOOL_REQUEST]"),
    Written(
        "LFM 2: Ollama, lfm2_test.go",
        'I check.<|tool_call_start|>[get_weather(city="Paris"),sum_numbers(numbers=[1, 2.5])]'
        "<|tool_call_end|>",
        (PARIS, ("sum_numbers", {"numbers": [1, 2.5]})),
        "I check.",
    ),
    Written(
        "MiniMax M2: vLLM, test_minimax_m2_tool_parser.py",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris'
        "</parameter>\n</invoke>\n</minimax:tool_call>[e~[",
    ),
    Written(
        "MiniMax M2: after a sentence",
        'I look. <minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris'
        "</parameter>\n</invoke>\n</minimax:tool_call>",
        lead="I look. ",
    ),
    Written(
        "gpt-oss: the harmony guide",
        "<|channel|>analysis<|message|>Need to use get_weather.<|end|><|start|>assistant"
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city":"Paris"}<|call|>',
        reasoning="Need to use get_weather.",
    ),
    Written(
        "gpt-oss: vLLM, openai_tool_parser.py",
        "<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>"
        '{"city":"Paris"}',
    ),
    Written(
        "gpt-oss: its tokens lost",
        'commentary to=functions.get_weather json{"city":"Paris"}',
    ),
    Written(
        "gpt-oss: its tokens lost after thinking",
        'Need the weather.assistantcommentary to=functions.get_weather json{"city":"Paris"}',
        lead="Need the weather.",
    ),
    Written(
        "gpt-oss: what it says before",
        "I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather"
        ' <|constrain|>json<|message|>{"city":"Paris"}<|call|>',
        lead="I look.<|end|>",
    ),
    Written("EXAONE 4: its template", f"<tool_call>{OBJECT}</tool_call>[|endofturn|]"),
    Written(
        "Gemma 3: ai.google.dev, function calling",
        '```tool_code\nprint(get_weather(city="Paris"))\n```',
    ),
    Written(
        "Gemma 3: several",
        'Okay.\n```tool_code\nget_weather(city="Paris")\ncurrent_time()\n```',
        (PARIS, NOW),
        "Okay.\n",
    ),
    Written(
        "Gemma 4: Ollama, gemma4_test.go",
        '<|tool_call>call:search_files{text:<|"|>say "hello", then<|"|>,limit:42}<tool_call|>',
        (("search_files", {"text": 'say "hello", then', "limit": 42}),),
    ),
    Written(
        "FunctionGemma: ai.google.dev, formatting",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>"
        "<start_function_response>",
    ),
    Written("xLAM 2: vLLM, xlam_tool_parser.py", f"[{OBJECT}]"),
    Written("Nemotron Nano 2: its parser", f"<TOOLCALL>[{OBJECT}]</TOOLCALL>"),
    Written("Hunyuan A13B, Jamba: vLLM", f"<tool_calls>[{OBJECT}]</tool_calls>"),
    Written(
        "Hunyuan 2: its template",
        "<tool_calls>\n<tool_call>get_weather<tool_sep>\n<arg_key>city</arg_key>\n<arg_value>Paris"
        "</arg_value>\n</tool_call>\n</tool_calls>",
    ),
    Written(
        "Olmo 3: vLLM, olmo3_tool_parser.py",
        '<function_calls>\nget_weather(city="Paris")\ncurrent_time()\n</function_calls>',
        (PARIS, NOW),
    ),
    Written(
        "InternLM 2: its chat_format.md",
        f"Sure.<|action_start|><|plugin|>\n{LLAMA}<|action_end|><|im_end|>",
        lead="Sure.",
    ),
    Written(
        "Apertus: llama.cpp, test-chat.cpp",
        '<|tools_prefix|>[{"get_weather": {"city": "Paris"}}]<|tools_suffix|>',
    ),
    Written("Functionary 3.2: llama.cpp", '>>>get_weather\n{"city": "Paris"}'),
    Written(
        "Glaive's data",
        '<functioncall> {"name": "get_weather", "arguments": \'{"city": "Paris"}\'} <|endoftext|>',
    ),
    Written("Qwen 2.5 Coder: llama.cpp", f"<tools>\n{OBJECT}\n</tools>"),
    Written(
        "OpenAI's message",
        '{"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather",'
        ' "arguments": "{\\"city\\": \\"Paris\\"}"}}]}',
    ),
    Written(
        "OpenAI's call",
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}',
    ),
    Written(
        "a wrong type under Llama's key",
        '{"name": "search_files", "parameters": {"text": 3, "limit": "5"}}',
        (("search_files", {"text": "3", "limit": 5}),),
    ),
    Written("smolagents", '{"tool": "get_weather", "args": {"city": "Paris"}}'),
    Written(
        "OpenAI's name space", '{"name": "functions.get_weather", "arguments": {"city": "Paris"}}'
    ),
    Written("several bare objects", f"{OBJECT}\n{OBJECT}", (PARIS, PARIS)),
    Written("without arguments", '{"name": "current_time"}', (NOW,)),
    Written("without optional arguments", '{"name": "list_files"}', (("list_files", {}),)),
]
# What is wrong with the JSON, and what stands around it.
REPAIRED = [
    Written("single quotes", "{'name': 'get_weather', 'arguments': {'city': 'Paris'}}"),
    Written("commas", '{"name": "get_weather", "arguments": {"city": "Paris",},}'),
    Written("no quotes", '{name: "get_weather", arguments: {city: "Paris"}}'),
    Written("Python", "{'name': 'get_weather', 'arguments': {'city': 'Paris', 'unit': None}}"),
    Written("text", '{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}'),
    Written("null", '{"name": "current_time", "arguments": null}', (NOW,)),
    Written("a bracket too many", f"{OBJECT}}}"),
    Written(
        "a number as text",
        '{"name": "search_files", "arguments": {"text": "a", "limit": "3"}}',
        (("search_files", {"text": "a", "limit": 3}),),
    ),
    Written(
        "escapes that JSON lacks",
        r'{"name": "search_files", "arguments": {"text": "C:\data\d"}}',
        (("search_files", {"text": r"C:\data\d"}),),
    ),
    Written(
        "a line end in a string",
        '{"name": "search_files", "arguments": {"text": "a\nb"}}',
        (("search_files", {"text": "a\nb"}),),
    ),
    Written(
        "surrogates",
        '{"name": "search_files", "arguments": {"text": "\\ud83d\\ude00 \\ud800"}}',
        (("search_files", {"text": "😀 \ufffd"}),),
    ),
    Written("blank lines", f"\n\n \t{OBJECT}\n\n"),
    Written("a byte order mark", f"\ufeff{OBJECT}"),
    Written("CRLF", f"```json\r\n{OBJECT}\r\n```\r\n"),
    Written("an end token", f"{OBJECT}<|im_end|>"),
    Written("two end tokens", f"<tool_call>{OBJECT}</tool_call><|eot_id|>\n</s>"),
    Written("a fence without an end", f"```json\n{OBJECT}"),
    Written("a fence without a language", f"```\n{OBJECT}\n```"),
    Written("two fences", f"```json\n{OBJECT}\n```\n\n```json\n{OBJECT}\n```", (PARIS, PARIS)),
    Written("a tag in a fence", f"```xml\n<tool_call>\n{OBJECT}\n</tool_call>\n```"),
    Written("positions", '```tool_code\nget_weather("Paris")\n```'),
    Written("a lead", f"Sure!\r\n\r\n<tool_call>{OBJECT}</tool_call>", lead="Sure!\r\n\r\n"),
    Written(
        "code before it",
        f"I ran `ls` and\n```\nls\n```\n<tool_call>{OBJECT}</tool_call>",
        lead="I ran `ls` and\n```\nls\n```\n",
    ),
]


def bodies(dialect: Server, pieces: Iterable[str]) -> tuple[ResponseHead, bytes]:
    if dialect is OLLAMA:
        last = ollama(True, done_reason="stop")
        return streamed(OLLAMA, *(ollama(False, content=piece) for piece in pieces), last)
    return streamed(OPENAI, *(chunk(content=piece) for piece in pieces), chunk("stop"))


def answer(dialect: Server, *pieces: str, tools: tuple[ToolSpec, ...] = TOOLS) -> Outcome:
    head, body = bodies(dialect, pieces)
    return decode(dialect, head, [body], ResponseContext(tools=tools))


def called(outcome: Outcome) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in outcome.calls]


@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=["OpenAI", "Ollama"])
@pytest.mark.parametrize("row", table(*FAMILIES, *REPAIRED))
def test_calls(row: Written, dialect: Server) -> None:
    text = row.text
    cuts = [(text[:at], text[at:]) for at in range(1, len(text))]
    for pieces in ((text,), *cuts, tuple(text)):
        outcome = answer(dialect, *pieces)
        assert called(outcome) == [*row.calls]
        assert outcome.text == row.lead
        assert outcome.reasoning == row.reasoning
        assert len({call.id for call in outcome.calls}) == len(row.calls)
        assert isinstance(outcome.events[-1], Finished)


@pytest.mark.parametrize("row", table(*FAMILIES))
def test_calls_of_answers_that_are_not_streamed(row: Written) -> None:
    head, body = at_once(whole("stop", content=row.text))
    assert called(decode(OPENAI, head, [body], ResponseContext(tools=TOOLS))) == [*row.calls]
    head, body = at_once(ollama(True, content=row.text, done_reason="stop"))
    assert called(decode(OLLAMA, head, [body], ResponseContext(tools=TOOLS))) == [*row.calls]


@pytest.mark.parametrize("row", table(*FAMILIES))
def test_without_tools_a_call_is_text(row: Written) -> None:
    plain = decode(OPENAI, *as_pieces(bodies(OPENAI, [row.text])))
    assert plain.calls == []
    others = (tool("another"),)
    assert answer(OPENAI, row.text, tools=others).text == plain.text
    assert answer(OPENAI, row.text, tools=others).calls == []


def as_pieces(reply: tuple[ResponseHead, bytes]) -> tuple[ResponseHead, list[bytes]]:
    return reply[0], single_bytes(reply[1])


SCHEMA = json.dumps(WEATHER.parameters)
DESCRIBED = (
    '{"type": "function", "function": {"name": "get_weather", "description": "What it does",'
    f' "parameters": {SCHEMA}}}}}'
)
NO_CALLS = {
    "prose": "I would use get_weather for that, with the city.",
    "prose that begins like a token": "functional calls to= call: are fun",
    "the name": "get_weather",
    "a name and a bracket": "get_weather (a tool) gives the weather",
    "an example after a lead": f"You call it like this:\n```json\n{OBJECT}\n```",
    "an object after a lead": f"The call is:\n{OBJECT}",
    "an example with words after it": f"```json\n{OBJECT}\n```\nThis asks for the weather.",
    "an object with words after it": f"{OBJECT}\n\nThis is how you call it.",
    "a tag in inline code": f"Write `<tool_call>{OBJECT}</tool_call>` then",
    "a tag in inline code at the end": f"Write `\n<tool_call>{OBJECT}</tool_call>",
    "a tag in a fence after a lead": f"So:\n```\n<tool_call>{OBJECT}</tool_call>\n```",
    "a tag within a line": f"The model writes <tool_call>{OBJECT}</tool_call>",
    "a tag behind half a sentence": "Sure, <tool_call>\n<function=get_weather>\n"
    "<parameter=city>Paris</parameter>\n</function>\n</tool_call>",
    "a tag in a list": f"1. <tool_call>{OBJECT}</tool_call>",
    "a tag in indented code": f"Example:\n\n    <tool_call>{OBJECT}</tool_call>",
    "a tag behind a tab": f"Example:\n\n\t<tool_call>{OBJECT}</tool_call>",
    "a quotation": f"> <tool_call>{OBJECT}</tool_call>",
    "a token within a line": f"Mistral writes it as [TOOL_CALLS][{OBJECT}]",
    "a token behind a colon": f"Mistral: [TOOL_CALLS][{OBJECT}]",
    "a token in bold": f"Format: **[TOOL_CALLS][{OBJECT}]",
    "a token in a table": f"| Mistral | [TOOL_CALLS][{OBJECT}]",
    "a token in quotes": f'It is "<|python_tag|>{OBJECT}',
    "a token within quotes": f'He wrote "I look. <|python_tag|>{OBJECT}',
    "a token in single quotes": f"It is '<|python_tag|>{OBJECT}",
    "a doctest": '>>> get_weather("Paris")',
    "a word and a call": "call: current_time()",
    "a call in a name space": 'functions.get_weather("Paris")',
    "Python as an action": 'A trace:\n\nAction: get_weather("Paris")',
    "a name and a set": "get_weather{city}",
    "a name and a rule": "get_weather { color: red }",
    "a name and JSON in a sentence": 'get_weather{"city": "Paris"} is how Mistral writes it.',
    "a name and JSON behind a lead": 'It is get_weather{"city": "Paris"}',
    "an action of other data": '{"action": "search_files", "input": "x"}',
    "the same the other way round": '{"input": "x", "action": "search_files"}',
    "a function of other data": '{"function": "get_weather", "args": ["x"]}',
    "a tool of other data, cut": '{"tool": "get_weather", "input": "x',
    "the arguments of the tool": '{"name": "get_weather", "parameters": {"city": {"type": "string"'
    ', "description": "The city"}}}',
    "a list among them": '{"name": "sum_numbers", "parameters": {"numbers": {"type": "array"}}}',
    "a tool without parameters as listed": '<tools>\n{"type": "function", "function":'
    ' {"name": "current_time", "parameters": {}}}\n</tools>',
    "a tag with words after it": f"<tool_call>{OBJECT}</tool_call> is what a model writes.",
    "a tag after a long lead": f"{'word ' * 300}\n<tool_call>{OBJECT}</tool_call>",
    "the name of a tag": "<tool_call> is a tag.",
    "two mentioned tags": f"<tool_call> is a tag.\n<tool_call>{OBJECT}</tool_call>",
    "a tool that is not offered": OBJECT.replace("get_weather", "compare_weather"),
    "a tag, and no offered tool": f"<tool_call>{OBJECT.replace('get_weather', 'x')}</tool_call>",
    "one of two tools": f'[{OBJECT}, {{"name": "budget", "arguments": {{}}}}]',
    "other JSON": '{"city": "Paris", "temperature": 21}',
    "other JSON with a name": '{"name": "Paris", "arguments": ["a"]}',
    "the name alone": '{"name": "get_weather"}',
    "an entry with an id": '{"id": 1, "name": "current_time"}',
    "an entry": '{"name": "current_time", "value": 3}',
    "names in a list": '["get_weather", "current_time"]',
    "a list of numbers": "[1, 2, 3]",
    "nothing": "",
    "an empty list": "[]",
    "an empty object": "{}",
    "empty calls": '{"tool_calls": []}',
    "blanks": " \n\n ",
    "the tool itself": f'{{"name": "get_weather", "description": "x", "parameters": {SCHEMA}}}',
    "the tool without words": f'{{"name": "get_weather", "parameters": {SCHEMA}}}',
    "the tool for OpenAI": f'[{{"type": "function", "function": {{"name": "get_weather",'
    f' "description": "x", "parameters": {SCHEMA}}}}}]',
    "a tool without parameters itself": '{"name": "current_time", "description": "The time",'
    ' "parameters": {"type": "object", "properties": {}}}',
    "the same without words": '{"name": "current_time", "parameters":'
    ' {"type": "object", "properties": {}}}',
    "JSON schema": '{"type": "object", "properties": {"name": {"type": "string"}}}',
    "code": '```python\nprint(get_weather(city="Paris"))\n```',
    "code that defines it": "```python\ndef get_weather(city):\n    return 1\n```",
    "code in no fence": "def get_weather(city):\n    return 1",
    "a call in code": 'get_weather(city="Paris")',
    "code of tools": "```tool_code\nimport os\n```",
    "a set": '[get_weather(city="Paris").temperature]',
    "data with parameters of a model": '[{"name": "Adam", "params": {"lr": 0.1}}]',
    "data with other words for arguments": '[{"name": "x", "args": {"a": 1}},'
    ' {"name": "y", "kwargs": {"a": 1}}, {"name": "z", "input": {"a": 1}}]',
    "other words for arguments in a tag": "<tool_call>\n"
    '{"name": "x", "params": {"a": 1}}\n</tool_call>',
    "a list of words": "[get_weather] is the tool",
    "HTML": "<table><tr><td>get_weather</td></tr></table>",
    "another fence": "```mermaid\ngraph TD\n```",
    "thinking": "<think>get_weather</think>\n\nIt is warm.",
    "braces": "{{ get_weather }}",
    "a template": '{"name": "{{ tool }}", "arguments": {}}',
    "two end tokens": "<|im_end|><|im_end|>",
    "YAML": "name: get_weather\narguments:\n  city: Paris",
    "Mistral's tag named": "[TOOL_CALLS] is Mistral's token.",
    "deep": "[" * 500 + "]" * 500,
    "halves": 'surrogates \\ud800 {"name": "get_weather"',
}


@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=["OpenAI", "Ollama"])
@pytest.mark.parametrize("name", NO_CALLS)
def test_other_texts_stay_as_they_are(name: str, dialect: Server) -> None:
    text = NO_CALLS[name]
    cuts = [(text[:at], text[at:]) for at in range(1, len(text), 1 + len(text) // 200)]
    for pieces in ((text,), *cuts, tuple(text)):
        head, body = bodies(dialect, [piece for piece in pieces if piece])
        plain = decode(dialect, head, [body], ResponseContext())
        reply = ResponseDecoder("Box", dialect.decoder(()), ResponseContext(tools=TOOLS))
        events = [*reply.feed(head), *reply.feed(body), *reply.close()]
        texts = [event.text for event in events if isinstance(event, TextDelta)]
        assert "".join(texts) == plain.text
        assert not any(isinstance(event, ToolCall) for event in events)
        assert reply.broken_call is None
        assert "" not in texts


UNKNOWN = {
    "a tool that is not offered": ("compare_weather",),
    "a tag, and no offered tool": ("x",),
    "one of two tools": ("budget",),
    "other words for arguments in a tag": ("x",),
}
"""The tools of those that look like calls of tools that are not offered."""


@pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=["OpenAI", "Ollama"])
@pytest.mark.parametrize("name", NO_CALLS)
def test_calls_of_tools_that_are_not_offered_stay_text(name: str, dialect: Server) -> None:
    text, context = NO_CALLS[name], ResponseContext(tools=TOOLS, holds_unknown=True)
    for pieces in ((text,), tuple(text)):
        head, body = bodies(dialect, [piece for piece in pieces if piece])
        plain = decode(dialect, head, [body], ResponseContext())
        reply = ResponseDecoder("Box", dialect.decoder(()), context)
        before = [*reply.feed(head), *reply.feed(body)]
        last = [*reply.close()]
        texts = [event.text for event in [*before, *last] if isinstance(event, TextDelta)]
        assert "".join(texts) == plain.text
        assert reply.unknown_tools == UNKNOWN.get(name, ())
        assert reply.broken_call is None
        if name in UNKNOWN:
            assert not any(isinstance(event, TextDelta) for event in before)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OBJECT.replace("get_weather", "x"), "length"),
        (OBJECT.replace("get_weather", "x")[:-3], "stop"),
        (f"{OBJECT.replace('get_weather', 'x')}\n{{'temperature': 21}}", "stop"),
        ("\n".join([OBJECT.replace("get_weather", "x")] * 17), "stop"),
        (f"{OBJECT}\n{OBJECT.replace('get_weather', 'x')}", "stop"),
        (OBJECT, "stop"),
    ],
)
def test_answers_that_are_not_all_of_unknown_tools(text: str, reason: str) -> None:
    for pieces in ([text], [*text]):
        tool_text = ToolText(TOOLS, holds_unknown=True)
        events: list[Event] = [*map(TextDelta, pieces), Finished(reason)]
        assert [part for event in events for part in tool_text.feed(event)]
        assert tool_text.unknown == ()


NUMBERS = '{"name": "sum_numbers", "arguments": {"numbers": [1]}}'
BROKEN = {
    "it stops in a string": (OBJECT[:-4], WEATHER),
    "it stops after the name": ('{"name": "get_weather", "argum', WEATHER),
    "an argument is missing": ('{"name": "get_weather", "arguments": {}}', WEATHER),
    "an argument is unknown": (OBJECT.replace('"city"', '"town"'), WEATHER),
    "a value is not allowed": (
        '{"name": "get_weather", "arguments": {"city": "Paris", "unit": "kelvin"}}',
        WEATHER,
    ),
    "the type is wrong": ('{"name": "sum_numbers", "arguments": {"numbers": "ten"}}', SUM),
    "the schema as arguments": (f'{{"name": "get_weather", "arguments": {SCHEMA}}}', WEATHER),
    "a quote is missing": ('{"name": "get_weather", "arguments": {"city": Paris"}}', WEATHER),
    "a colon is missing": ('{"name": "get_weather", "arguments" {"city": "Paris"}}', WEATHER),
    "it stops in a number": ('{"name": "sum_numbers", "arguments": {"numbers": [1, 2', SUM),
    "it stops after a comma": ('{"name": "get_weather", "arguments": {"city": "Paris",', WEATHER),
    "it stops after a colon": ('{"name": "search_files", "arguments": {"text":', FILES),
    "it stops before the arguments": ('{"name": "current_time"', TIME),
    "a tag after a lead": (f"Sure.\n<tool_call>{OBJECT[:-3]}", WEATHER),
    "a description with a value": (
        '{"name": "get_weather", "parameters": {"city": {"type": "string", "value": "Paris"}}}',
        WEATHER,
    ),
    "an action": ('{"action": "search_files", "action_input": {"query": "x"}}', FILES),
    "the same the other way round": ('{"input": {"query": "x"}, "action": "search_files"}', FILES),
    "a parameter is not closed": (
        "<tool_call>\n<function=search_files>\n<parameter=text>\ncats\n<parameter=limit>\n5\n"
        "</parameter>\n</function>\n</tool_call>",
        FILES,
    ),
    "a parameter is not closed in a line": (
        "<tool_call>search_files<arg_key>text</arg_key><arg_value>cats<arg_key>folder</arg_key>"
        "<arg_value>a</arg_value></tool_call>",
        FILES,
    ),
    "the last parameter is not closed": (
        "<tool_call>\n<function=search_files>\n<parameter=text>\ncats\n</function>\n</tool_call>",
        FILES,
    ),
    "the end of a parameter in its value": (
        "<tool_call>\n<function=search_files>\n<parameter=text>\n<a></parameter></a>\n"
        "</parameter>\n</function>\n</tool_call>",
        FILES,
    ),
    "Python": ("[get_weather(city=Paris)]", WEATHER),
    "too many values": ('```tool_code\nget_weather("a", "b", "c")\n```', WEATHER),
    "a call behind the tool": (f"<tools>\n{DESCRIBED}\n</tools>\n{OBJECT}", WEATHER),
    "a call behind two tools": (f"{DESCRIBED}\n{DESCRIBED}\n{OBJECT}", WEATHER),
    "a wrong call behind the tool": (
        f'{DESCRIBED}\n{{"name": "sum_numbers", "arguments": 1}}',
        SUM,
    ),
    "an invented result": (f'{OBJECT}\n{{"temperature": 21}}', WEATHER),
    "an invented result in a list": (f"{OBJECT}\n[21, 22]", WEATHER),
    "an invented result in a fence": (f"```json\n{OBJECT}\n```\n```text\n21\n```", WEATHER),
    "an invented result in tags": (f"{OBJECT}\n<tool_response>\n21\n</tool_response>", WEATHER),
    "an invented result of two calls": (f'{OBJECT}\n{NUMBERS}\n{{"temperature": 21}}', WEATHER),
    "a call of another tool": (f'{OBJECT}\n{{"name": "x", "arguments": {{}}}}', WEATHER),
    "too many calls": ("\n".join([OBJECT] * 17), WEATHER),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_calls(name: str) -> None:
    text, expected = BROKEN[name]
    for pieces in ([text], [*text]):
        tool_text = ToolText(TOOLS)
        events: list[Event] = []
        for piece in pieces:
            events += tool_text.feed(TextDelta(piece))
        assert (tool_text.broken is not None) == tool_text.is_endless == (name == "too many calls")
        last = [*tool_text.feed(Finished("stop"))]
        assert tool_text.broken == expected
        # The held text comes at the end, in one piece.
        assert len(last) == 2
        assert isinstance(last[0], TextDelta)
        texts = [event.text for event in [*events, *last] if isinstance(event, TextDelta)]
        assert "".join(texts) == text
        assert last[0].text.lstrip("<").startswith(("{", "[", "```", "tool"))


PRECEDED = {
    "a call that is not valid": (f'{OBJECT}\n{{"name": "sum_numbers", "arguments": {{}}}}', 1),
    "a call between others": (
        f'{OBJECT}\n{{"name": "sum_numbers", "arguments": {{}}}}\n{NUMBERS}',
        1,
    ),
    "a call that is cut": (f"{OBJECT}\n{NUMBERS}\n{OBJECT[:-8]}", 2),
    "a name that is cut": (f'{OBJECT}\n{{"name": "sum_', 1),
    "a call that is cut in a list": (f"[{OBJECT}, {NUMBERS}, {OBJECT[:-8]}", 2),
    "a call that is cut in tags": (
        f"<tool_call>\n{OBJECT}\n</tool_call>\n<tool_call>\n{OBJECT[:-8]}",
        1,
    ),
    "a call that is cut in OpenAI's list": (f'{{"tool_calls": [{OBJECT}, {OBJECT[:-8]}', 1),
    "a call that is wrong": (f'{OBJECT}\n{OBJECT.replace("Paris", "", 1)[:-3]}"x"}}}}', 1),
    "an open parameter": (
        "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
        "<function=search_files>\n<parameter=text>\nx\n</function>\n<function=search_files>\n"
        "<parameter=text>\ny\n</parameter>\n</function>",
        1,
    ),
}


@pytest.mark.parametrize("reason", ["stop", "length", CUT_OFF])
@pytest.mark.parametrize("name", PRECEDED)
def test_calls_before_a_broken_one_count(name: str, reason: str) -> None:
    text, count = PRECEDED[name]
    for pieces in ([text], [*text]):
        tool_text = ToolText(TOOLS)
        fed: list[Event] = [*map(TextDelta, pieces), Finished(reason)]
        *found, _ = [part for event in fed for part in tool_text.feed(event)]
        calls = [(c.name, json.loads(c.arguments)) for c in found if isinstance(c, ToolCall)]
        assert calls == [PARIS, ("sum_numbers", {"numbers": [1]})][:count]
        assert len(found) == count
        assert tool_text.broken is None


WITHOUT_BRACKETS = {
    "a brace is missing": (OBJECT[:-1], PARIS),
    "two braces are missing": (OBJECT[:-2], PARIS),
    "a fence": (f"```json\n{OBJECT[:-1]}\n```", PARIS),
    "a fence without an end": (f"```json\n{OBJECT[:-2]}", PARIS),
    "a tag": (f"<tool_call>\n{OBJECT[:-1]}\n</tool_call>", PARIS),
    "a token at the end": (f"{OBJECT[:-1]}<|im_end|>", PARIS),
    "a tag after a lead": (f"Sure.\n<tool_call>{OBJECT[:-2]}", PARIS),
    "a list and a brace": (f"[{OBJECT[:-1]}", PARIS),
    "a list in the arguments": (
        '{"name": "sum_numbers", "arguments": {"numbers": [1, 2 ',
        ("sum_numbers", {"numbers": [1, 2]}),
    ),
    "Python": ('```tool_code\nget_weather(city="Paris"', PARIS),
    "Qwen 2.5 Coder 0.5B, recorded": (
        '{"name": "current_time", "arguments": {"type": "object", "properties": {"type": "string",'
        ' "enum": ["morning", "afternoon"]}}',
        NOW,
    ),
    "Qwen 2.5 Coder 0.5B, recorded, two": (
        '{"name": "current_time", "arguments": {"type": "object", "properties": {"type": "object",'
        ' "properties": {"date": {"type": "string", "format": "yyyy-MM-dd HH:mm:ss"}}}}',
        NOW,
    ),
}


@pytest.mark.parametrize("name", WITHOUT_BRACKETS)
def test_brackets_may_lack_where_the_model_has_stopped(name: str) -> None:
    text, (tool_name, arguments) = WITHOUT_BRACKETS[name]
    for pieces in ([text], [*text]):
        parts: list[Event] = [TextDelta(piece) for piece in pieces]
        (call,) = (part for part in events_of(*parts, Finished("stop")) if type(part) is ToolCall)
        assert (call.name, json.loads(call.arguments)) == (tool_name, arguments)
        for reason in ("length", CUT_OFF):
            tool_text = ToolText(TOOLS)
            cut_off: list[Event] = [*parts, Finished(reason)]
            cut = [part for event in cut_off for part in tool_text.feed(event)]
            assert not any(isinstance(part, ToolCall) for part in cut)
            assert tool_text.broken is not None
            assert tool_text.broken.name == tool_name


def test_calls_without_end_are_known_at_once() -> None:
    tool_text, count = ToolText(TOOLS), 0
    while not tool_text.is_endless:
        assert [*tool_text.feed(TextDelta(f"{OBJECT}\n"))] == []
        count += 1
    # A long text is not read again with each piece.
    assert 17 <= count <= 20
    assert tool_text.broken == WEATHER
    # What is read of it is text, and the tool stays known.
    assert [*tool_text.flush()] == [TextDelta(f"{OBJECT}\n" * count)]
    assert tool_text.broken == WEATHER


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_calls_without_end_are_broken_wherever_they_are_cut(reason: str) -> None:
    tool_text = ToolText(TOOLS)
    text = f"{OBJECT}\n" * 17 + '{"name": "get_weather", "arguments": {"city": "Pa'
    [*tool_text.feed(TextDelta(text)), *tool_text.feed(Finished(reason))]
    assert tool_text.broken == WEATHER


def test_text_without_end_behind_a_call_flows() -> None:
    for behind in ('{"a": 1}\n', f"{OBJECT}\n"):
        tool_text = ToolText(TOOLS)
        parts = [
            part
            for text in (f"{OBJECT}\n", *[behind] * 1000)
            for part in tool_text.feed(TextDelta(text))
        ]
        assert len(parts) > 200
        assert tool_text.broken is None


NOT_BROKEN = {
    "a call and a sentence": f"{OBJECT} is how you call it.",
    "a result and a sentence": f'{OBJECT}\n{{"temperature": 21}}\nSo it is warm.',
    "a fence and a sentence": f"```json\n{OBJECT}\n```\n```text\n21\n```\nThis is what you get.",
    "a tag and a sentence": f"{OBJECT}\n<b>This</b> is a call.",
    "entries": '{"name": "current_time"}\n{"name": "Paris"}',
    "the tool, cut": f"<tools>\n{DESCRIBED[:90]}",
    "the tool": f"<tools>\n{DESCRIBED}\n</tools>",
    "the tool without tags": DESCRIBED,
    "the tool and a sentence": f"<tools>\n{DESCRIBED}\n</tools>\nThis is my tool.",
    "two tools and another call": f'{DESCRIBED}\n{DESCRIBED}\n{{"name": "x", "arguments": 1}}',
    "the tool and an object": f'<tools>\n{DESCRIBED}\n</tools>\n{{"a": 1}}',
    "a tag of examples": f"<example>{OBJECT}</example>",
    "a tag and a sentence behind it": f"<response>{OBJECT}</response> is what it says.",
    "another key of the tool itself": '{"name": "get_weather", "parameters": {}, "strict": true}',
    "a sentence after the error": '{"name": "get_weather", "arguments" is how it begins.',
    "no offered tool": '{"name": "other", "arguments": {"city": "Paris"',
    "no name yet": '{"arguments": {"city": "Paris"',
    "another key": '{"name": "get_weather", "city": "Paris"',
}


@pytest.mark.parametrize("name", NOT_BROKEN)
def test_texts_that_are_not_even_broken_calls(name: str) -> None:
    tool_text = ToolText(TOOLS)
    events: list[Event] = [TextDelta(NOT_BROKEN[name]), Finished("stop")]
    assert [part for event in events for part in tool_text.feed(event)] == events
    assert tool_text.broken is None


# Answers of Qwen 2.5 Coder 0.5B (Q4_K_M, engine b11549) with tools offered, as recorded; "cut" at a
# limit of 200 tokens, or by this test. With them: how they ended, the call that they are, and the
# tool of which they look like a call.
RECORDED: dict[str, tuple[str, str, tuple[str, dict[str, Any]] | None, str | None]] = {
    "a tag that it made up": (
        '<response>\n    {"name": "current_time", "arguments": {"type": "object", "prop'
        'erties": {"type": "string", "enum": ["year", "month", "day", "hour", "minute",'
        ' "second"]}}}\n</response>',
        "stop",
        ("current_time", {}),
        None,
    ),
    "another one": (
        '<json>\n  {"name": "current_time", "arguments": {"type": "object", "properties'
        '": {"type": "string", "enum": ["kitchen", "bedroom", "garage"]}}}\n</json>',
        "stop",
        ("current_time", {}),
        None,
    ),
    "a tag, cut": (
        '<response>\n    {"name": "current_time", "arguments": {"type": "object", "prop'
        'erties": {"type": "string", "enum": ["2023-04-15T12:00:00", "2023-04-15T13:00:'
        '00", "2023-04-15T14:00:00", "2023-04-15T15:00:00", "2023-04-16T00:00:00", "202'
        '3-04-16T01:00:00", "2023-04-16T02:00:00", "2023-04-16T03:00:00",',
        "length",
        None,
        "current_time",
    ),
    "names in tags": (
        '<name>get_weather</name>\n<arguments>{"city": "Madrid"}</arguments>',
        "stop",
        ("get_weather", {"city": "Madrid"}),
        None,
    ),
    "names in tags, and no JSON": (
        "<name>llm_time</name>\n<arguments>\n  <timezone>UTC</timezone>\n  <local_time>"
        "2023-10-01T12:00:00Z</local_time>\n</arguments>",
        "stop",
        None,
        "llm_time",
    ),
    "a brace too few": (
        '{"name": "current_time", "arguments": {"type": "object", "properties": {"type"'
        ': "string", "enum": ["morning", "afternoon"]}}',
        "stop",
        ("current_time", {}),
        None,
    ),
    "the same, cut": (
        '{"name": "current_time", "arguments": {"type": "object", "properties": {"type"'
        ': "string", "enum": ["morning", "afternoon"]}}',
        "length",
        None,
        "current_time",
    ),
    "another bracket": (
        '{"name": "get_weather", "arguments": {"city": "Paris"}]}',
        "stop",
        None,
        "get_weather",
    ),
    "a word of the schema": (
        '{\n"name": "set_light",\n"arguments": {\n"room": "kitchen",\n"state": "off"\n}'
        ',\n"required": ["room", "state"]\n}',
        "stop",
        None,
        "set_light",
    ),
    "arguments of another tool": (
        '{\n"name": "add_contact",\n"arguments": {\n"room": "bedroom",\n"state": "on"\n}\n}',
        "stop",
        None,
        "add_contact",
    ),
    "a result behind the call": (
        '{"name": "llm_time", "arguments": {}}\n{"utc_time": "2026-11-30 07:54:59 UTC",'
        ' "utc_time_iso": "2026-11-30T07:54:59.527689+00:00", "local_timezone": "UTC", '
        '"local_time": "2026-11-30 07:54:59", "timezone_offset": "UTC+00:00", "is_dst":'
        " false}",
        "stop",
        None,
        "llm_time",
    ),
    "the same, cut too": (
        '{"name": "llm_time", "arguments": {}}\n{"utc_time": "2026-11-30 07:54:59 UTC",'
        ' "utc_time_iso": "2026-11-30T07:54:59.527689+00:00", "local_timezone": "UTC", '
        '"local_time": "2026-11-30 07:54:59", "timezone_offset":',
        "length",
        None,
        "llm_time",
    ),
    "the tool, and names that are none": (
        '<tools>\n{"type": "function", "function": {"name": "sum_numbers", "description'
        '": "Adds up a list of numbers", "parameters": {"type": "object", "properties":'
        ' {"numbers": {"type": "array", "items": {"type": "number"}}}, "required": ["nu'
        'mbers"]}}}\n{"name": "arguments", "arguments": {"numbers": [19.99, 5, 7.50]}}'
        '\n{"name": "name", "arguments": "sum_numbers"}\n{"name": "arguments", "argumen'
        'ts": {"numbers": [19.99, 5, 7.50, 100]}}\n{"name": "arguments", "arguments": {'
        '"numbers": [19.99, 5, 7.50, 100, 100]}}\n{"name": "arguments", "arguments": {"'
        'numbers": [19.',
        "length",
        None,
        "sum_numbers",
    ),
    "the tool alone": (
        '<tools>\n{"type": "function", "function": {"name": "llm_time", "description": '
        '"Returns the current time, as local time and UTC", "parameters": {"type": "obj'
        'ect", "properties": {"timezone": "UTC"}}}}\n</tools>',
        "stop",
        None,
        None,
    ),
    "a tool that is not offered": (
        '```json\n{\n  "name": "compare_weather",\n  "arguments": {\n    "city": "Tokyo'
        '"\n  }\n}\n```',
        "stop",
        None,
        None,
    ),
    "the same in a tag": (
        '<json>\n    {"name": "add_numbers", "arguments": {"numbers": [1024, 2048]}}\n</json>',
        "stop",
        None,
        None,
    ),
    "prose": (
        "No, you do not need an umbrella in London today.",
        "stop",
        None,
        None,
    ),
}
RECORDED_TOOLS = (
    *(ToolSpec(each.name, each.description or "", each.input_schema) for each in six_tools.tools()),
    ToolSpec("llm_time", "", {"type": "object", "properties": {}}),
)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers(name: str) -> None:
    text, reason, call, broken = RECORDED[name]
    for pieces in ([text], [*text]):
        tool_text = ToolText(RECORDED_TOOLS)
        events: list[Event] = [*map(TextDelta, pieces), Finished(reason)]
        parts = [part for event in events for part in tool_text.feed(event)]
        calls = [part for part in parts if isinstance(part, ToolCall)]
        assert [(each.name, json.loads(each.arguments)) for each in calls] == [call][
            : call is not None
        ]
        assert (tool_text.broken and tool_text.broken.name) == broken
        if call is None:
            assert "".join(part.text for part in parts if isinstance(part, TextDelta)) == text


@pytest.mark.parametrize("length", [4000, 4200])
def test_text_long_after_an_error_is_no_call_however_it_comes(length: int) -> None:
    text = f'{{"name": "get_weather", "arguments": {{"city": Paris {"x" * length}"}}}}'
    found = []
    for pieces in ([text], [*text]):
        tool_text = ToolText(TOOLS)
        events: list[Event] = [*map(TextDelta, pieces), Finished("stop")]
        for event in events:
            assert not any(isinstance(part, ToolCall) for part in tool_text.feed(event))
        found.append(tool_text.broken)
    assert found == [WEATHER if length == 4000 else None] * 2


# What is held

HELD_AT_MOST = {
    # The longest token that it may be, or the name of a tool.
    "prose": ("It is warm in Paris today. < b, and a > b. " * 50, 24),
    "a word like a token": ("function " * 100, 24),
    "another key": ('{"city": "' + "x" * 1000, 4),
    "another name": ('{"name": "' + "x" * 1000, 12),
    "another fence": ("```python\n" + "x = 1\n" * 500, 6),
    "a list": ("[1, 2, 3" + ", 4" * 500, 3),
    "words after an object": (OBJECT + "\nThis is a call." * 100, len(OBJECT) + 3),
    "another tag": ("<table>" + "<tr>" * 500, 24),
    "a heading": ("# A\n\n- b\n" * 100, 24),
    # Up to an eighth more than what may be a call.
    "words after a long object": (
        OBJECT.replace("Paris", "x" * 1000) + " is a call." * 500,
        1300,
    ),
}


UNKNOWN_HELD_AT_MOST = HELD_AT_MOST | {
    "another name": ('{"name": "' + "x" * 1000, 75),
    "a name with blanks": ('{"name": "Ada Lovelace", "arguments": {}}' + "x" * 1000, 14),
    "another key behind a name": ('{"name": "Rex", "age": "' + "x" * 1000, 19),
    "words after another object": (
        OBJECT.replace("get_weather", "x") + " is a call." * 50,
        len(OBJECT) - 7,
    ),
}
"""If calls of tools that are not offered are held, too."""


@pytest.mark.parametrize(
    ("text", "most", "holds_unknown"),
    [
        *((*row, False) for row in HELD_AT_MOST.values()),
        *((*row, True) for row in UNKNOWN_HELD_AT_MOST.values()),
    ],
)
def test_text_that_cannot_be_a_call_flows(text: str, most: int, holds_unknown: bool) -> None:
    tool_text, held, longest = ToolText(TOOLS, holds_unknown=holds_unknown), 0, 0
    for character in text:
        held += 1
        parts = tool_text.feed(TextDelta(character))
        held -= sum(len(part.text) for part in parts if isinstance(part, TextDelta))
        longest = max(longest, held)
    assert longest <= most


@pytest.mark.parametrize("size", [16, 1000, 2**16, 2**21])
def test_what_is_held_is_bounded(size: int) -> None:
    text = '{"name": "search_files", "arguments": {"text": "' + "a" * (2**18 + 2**16)
    tool_text, flowed = ToolText(TOOLS), 0
    for at in range(0, len(text), size):
        parts = tool_text.feed(TextDelta(text[at : at + size]))
        flowed += sum(len(part.text) for part in parts if isinstance(part, TextDelta))
    assert flowed == len(text)


# Other events


def events_of(*events: Event) -> list[Event]:
    tool_text = ToolText(TOOLS)
    return [part for event in events for part in tool_text.feed(event)]


def test_a_server_that_reports_calls_leaves_text_as_text() -> None:
    call = ToolCall("1", "get_weather", "{}")
    before: list[Event] = [TextDelta(OBJECT), call, Finished("tool_calls")]
    assert events_of(*before) == before
    after: list[Event] = [call, TextDelta(OBJECT), Finished("tool_calls")]
    assert events_of(*after) == after


def test_thinking_is_passed_on_at_once() -> None:
    events = events_of(ReasoningDelta("a"), TextDelta(OBJECT), Finished("stop"))
    assert [type(event) for event in events] == [ReasoningDelta, ToolCall, Finished]
    assert events_of(ReasoningDelta(OBJECT))[:-1] == []


def test_an_answer_that_is_cut_off_is_text() -> None:
    head, body = streamed(OPENAI, chunk(content=OBJECT))
    outcome = decode(OPENAI, head, [body], ResponseContext(tools=TOOLS))
    assert (outcome.text, outcome.calls) == (OBJECT, [])
    assert outcome.message.startswith("Box sent an answer that ends before it is complete")


@pytest.mark.parametrize("reason", ["stop", "length", CUT_OFF])
def test_whole_calls_count_however_the_answer_ends(reason: str) -> None:
    for text in (OBJECT, f"[{OBJECT}", f"[{OBJECT},"):
        (call, _) = events_of(TextDelta(text), Finished(reason))
        assert isinstance(call, ToolCall)
    tool_text = ToolText(TOOLS)
    [*tool_text.feed(TextDelta(OBJECT[:-1])), *tool_text.feed(Finished(reason))]
    assert tool_text.broken == (None if reason == "stop" else WEATHER)


def test_a_call_is_no_answer_that_must_be_json() -> None:
    context = ResponseContext(tools=TOOLS, is_json=True, schema={"type": "object"})
    head, body = bodies(OPENAI, [*OBJECT])
    outcome = decode(OPENAI, head, [body], context)
    assert (called(outcome), outcome.error) == ([PARIS], None)
    head, body = bodies(OPENAI, [*'{"city": "Paris"}'])
    outcome = decode(OPENAI, head, [body], context)
    assert (outcome.text, outcome.error) == ('{"city": "Paris"}', None)
    head, body = bodies(OPENAI, [*OBJECT[:-4]])
    assert decode(OPENAI, head, [body], context).error is AnswerNotJson


def test_facts_of_the_request_are_in_the_end_of_a_call() -> None:
    head, body = bodies(OPENAI, [OBJECT])
    context = ResponseContext(tools=TOOLS, facts={"context_size": 7})
    assert [each.context_size for each in decode(OPENAI, head, [body], context).finished] == [7]


# Time

HOSTILE = [
    *("{", "[", '[{"a":', '{"tool_calls": [', "```", "```json\n", "<tool_call", "<tool_call>"),
    *("`<tool_call>", "\n<tool_call>x", "\n```\n<tool_call>", " ", "\n", "\ufeff", "a", "<", "]"),
    *("functions.", "functions.get_weather:0", f"{OBJECT}\n", f"[{OBJECT},", "}", "Action:"),
    *("<response>", "<name>get_weather</name><arguments>", '{"a": 1}\n', f"{DESCRIBED}\n"),
    *("<function=get_weather><parameter=", "<arg_key>", "get_weather", "<|im_end|>", ">>>"),
    *('{"name": "x", "arguments": {}}\n', "x(", '{"name": "x'),
    *("get_weather{", "a.<tool_call>", "<parameter=text>a</parameter>", "<parameter=text>"),
]
BEGUN = [
    *("", "Sure.\n", "<tool_call>", '{"name": "search_files", "arguments": {"text": "'),
    *('{"name": "search_files", "arguments": ', "<function=search_files><parameter=text>"),
    *(f"{OBJECT}\n", '{"name": "search_files", "arguments": {"a": [', "```tool_code\nget_weather("),
    *('{"name": "search_files", "arguments": "{', '{"name": "x", "arguments": {"a": "'),
]


@pytest.mark.parametrize(("size", "length"), [(1, 1000), (2**16, 8000)])
def test_time_grows_with_the_length(size: int, length: int) -> None:
    def use(text: str) -> None:
        for _ in passed(text, size):
            pass

    def slow(begun: str, unit: str) -> bool:
        return not is_linear(use, lambda n: begun + unit * (n // len(unit)), length)

    units = [*HOSTILE, '"', "\\", "1,", "'", "\\u0041"]
    assert [(begun, unit) for begun in BEGUN for unit in units if slow(begun, unit)] == []


def passed(text: str, size: int) -> Iterator[Event]:
    tool_text = ToolText(TOOLS, holds_unknown=True)
    for at in range(0, len(text), size):
        yield from tool_text.feed(TextDelta(text[at : at + size]))
    yield from tool_text.feed(Finished("stop"))


@pytest.mark.parametrize("unit", ["{", "[", "```", "<tool_call", "<tool_call>", " ", "a"])
@pytest.mark.parametrize("size", [64, 2**16, 2**20])
@pytest.mark.parametrize("begun", ["", '{"name": "search_files", "arguments": ', "Sure.\n"])
def test_a_megabyte_of_nothing_is_text(begun: str, size: int, unit: str) -> None:
    text = begun + unit * (2**20 // len(unit))
    texts = [part.text for part in passed(text, size) if isinstance(part, TextDelta)]
    assert "".join(texts) == text

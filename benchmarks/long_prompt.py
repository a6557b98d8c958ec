"""A prompt of about 6,000 tokens whose first line has the answer, in a context of 4,096 tokens.

    python benchmarks/long_prompt.py [THREADS]

Needs the starter model (`llm localrun pull starter`); takes minutes on a slow machine. Prints the
error with a fixed context, and the answer when the context may grow.
"""

import sys
import time
from typing import Any

import llm

from llm_localrun.chat.models import LocalChat
from llm_localrun.resolve import model_with_id

STARTER = "local/gguf/SmolLM2-135M-Instruct.Q4_1"
FIRST_LINE = "The password for the vault is zebra-41."
QUESTION = "The text above begins with a password. What is the password?"
FILLER = (
    "The harbour master kept two clocks on the wall of his office, and they had not agreed for"
    " eleven years. One had come with the building. The other had belonged to his father, who had"
    " wound it every Sunday evening and had taught his son to do the same. Ships came in by the"
    " first clock, because the authority in the capital required it; tea was made by the second.\n"
)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    model = LocalChat(model_with_id(STARTER))
    prompt = f"{FIRST_LINE}\n\n{FILLER * 75}\n{QUESTION}"
    for context_size in (4096, None):
        begun = time.monotonic()
        options: dict[str, Any] = {"temperature": 0, "max_tokens": 16, "threads": threads}
        if context_size is not None:
            options["context_size"] = context_size
        response = model.prompt(prompt, **options)
        try:
            said = response.text().strip()
        except llm.ModelError as error:
            said = str(error)
        print(f"-o context_size {context_size}: {said}")
        if facts := response.response_json:
            tokens, held = response.input_tokens, facts["context_size"]
            print(f"  {tokens} tokens in a context of {held}, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()

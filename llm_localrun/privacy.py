"""Where a model runs, and whether its prompts may go there without the user's consent.

Judges addresses and what servers say about their models; asks no name server. Refusing a prompt is
left to `chat`.
"""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from llm_localrun.models import LocalModel, RunsOn
from llm_localrun.system.logins import split_login

WHERE: Mapping[RunsOn, str] = {
    RunsOn.THIS_MACHINE: "on this machine",
    RunsOn.ANOTHER_MACHINE: "on another machine",
    RunsOn.CLOUD: "in a cloud",
    RunsOn.UNKNOWN: "on an unknown machine",
}
"""Where a model runs, to follow "it runs"."""

_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine, judged by its name or address alone."""
    host = host_of(url)
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """The host in `url`, in lower case: `example.com`, `::1`; "" if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def shown_host(text: str) -> str:
    """The host that a program names for where it passes prompts on, without a user and password."""
    return host_of(text) or split_login(text)[0]


def requires_consent(model: LocalModel) -> bool:
    """Whether a model is refused until its id is in `allow` of config.json.

    Another machine needs no consent if the user added it as an endpoint. It needs consent if a
    server on this machine relays prompts to it.
    """
    served = model.served
    if served is None:
        return False
    if served.runs_on == RunsOn.ANOTHER_MACHINE:
        return is_loopback(served.endpoint.url)
    return served.runs_on in (RunsOn.CLOUD, RunsOn.UNKNOWN)


def where_runs(url: str) -> RunsOn:
    """Where the server at `url` runs its models, if it does not relay prompts."""
    if host_of(url) == "ollama.com":
        return RunsOn.CLOUD
    return RunsOn.THIS_MACHINE if is_loopback(url) else RunsOn.ANOTHER_MACHINE


def where_relayed(url: str) -> RunsOn:
    """Where the server at `url` runs its models, if it may relay prompts and does not say which."""
    runs_on = where_runs(url)
    return RunsOn.UNKNOWN if runs_on == RunsOn.THIS_MACHINE else runs_on


# Proxies such as LiteLLM, Bifrost and CLIProxyAPI name the provider as the owner of a model.
_PROVIDERS = frozenset(
    {
        *("anthropic", "aws", "azure", "bedrock", "cerebras", "cohere", "deepseek", "fireworks"),
        *("gemini", "google", "groq", "mistral", "mistralai", "moonshot", "openai", "openrouter"),
        *("perplexity", "together", "vertex_ai", "x-ai", "xai"),
    }
)
# Models whose weights are not published. Those of gpt-oss and gpt-2, for example, are.
_HOSTED = re.compile(
    r"(?:^|/)(?:gpt-(?:3\.5|[4-9])|chatgpt|o[1-9](?:$|-)|claude-|gemini-|grok-[3-9])", re.IGNORECASE
)


def is_provider(owner: str) -> bool:
    """Whether a model of this `owner` runs at a hosting provider, behind a proxy."""
    return owner.lower() in _PROVIDERS


def is_hosted(name: str) -> bool:
    """Whether the weights of a model are unpublished, so that only a proxy can offer it."""
    return _HOSTED.search(name) is not None

"""What runs on this machine and what does not.

Pure: judges addresses and what servers say of their models. Refusing is `backends`'s business.
"""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from llm_localrun.models import LocalModel, RunsOn

WHERE: Mapping[RunsOn, str] = {
    RunsOn.THIS_MACHINE: "on this machine",
    RunsOn.ANOTHER_MACHINE: "on another machine",
    RunsOn.CLOUD: "in a cloud",
    RunsOn.UNKNOWN: "nobody knows where",
}
"""How that is said of a model that runs there."""

_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine, told without asking a name server."""
    host = host_of(url)
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """The host in `url`, in lower case; "" if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def requires_consent(model: LocalModel) -> bool:
    """Whether a model is refused until the user has allowed it by its id.

    A machine that the user has added may be used; one that a server here hands on to may not.
    """
    is_added = model.endpoint is not None and not is_loopback(model.endpoint.url)
    return model.runs_on in (RunsOn.CLOUD, RunsOn.UNKNOWN) or (
        model.runs_on == RunsOn.ANOTHER_MACHINE and not is_added
    )


def where_runs(url: str) -> RunsOn:
    """Where a model runs that the server at `url` offers, if it does not hand prompts on."""
    if host_of(url) == "ollama.com":
        return RunsOn.CLOUD
    return RunsOn.THIS_MACHINE if is_loopback(url) else RunsOn.ANOTHER_MACHINE


def where_ollama_runs(url: str, name: str, remote_host: str) -> RunsOn:
    """Where a model of Ollama's runs.

    Ollama hands a prompt on for every model that has a `remote_host`, under whatever name, and for
    every name whose tag says cloud, whether it has been pulled or not.
    """
    if remote_host or name.lower().endswith((":cloud", "-cloud")):
        return RunsOn.CLOUD
    return where_runs(url)


def where_relayed(url: str) -> RunsOn:
    """Where a model runs of a server that may hand prompts on, and does not say of which models."""
    runs_on = where_runs(url)
    return RunsOn.UNKNOWN if runs_on == RunsOn.THIS_MACHINE else runs_on


# Proxies such as LiteLLM, Bifrost and CLIProxyAPI sign with the provider that they ask.
_PROVIDERS = frozenset(
    {
        *("anthropic", "aws", "azure", "bedrock", "cerebras", "cohere", "deepseek", "fireworks"),
        *("gemini", "google", "groq", "mistral", "mistralai", "moonshot", "openai", "openrouter"),
        *("perplexity", "together", "vertex_ai", "x-ai", "xai"),
    }
)
# What may be downloaded, as gpt-oss and gpt-2 may, is not among them.
_HOSTED = re.compile(
    r"(?:^|/)(?:gpt-(?:3\.5|[4-9])|chatgpt|o[1-9](?:$|-)|claude-|gemini-|grok-[3-9])", re.IGNORECASE
)


def is_provider(owner: str) -> bool:
    """Whether a model that is signed so is run by a provider: some proxy handed on the name."""
    return owner.lower() in _PROVIDERS


def is_hosted(name: str) -> bool:
    """Whether a model is one that its maker keeps to itself, so that only a proxy can offer it."""
    return _HOSTED.search(name) is not None

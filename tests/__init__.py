"""Tests: the real engine, the real `llm`, real sockets; stand-ins for servers we cannot run."""

set positional-arguments

# List the recipes.
default:
    @just --list

# Create .venv with the package and everything for development.
setup:
    python3 -m venv .venv
    .venv/bin/pip install -e '.[gguf,dev]'

# Run the tests, or those that ARGS name: `just test tests/wire -x`.
test *ARGS:
    .venv/bin/pytest "$@"

# Check style, formatting and types.
lint:
    .venv/bin/ruff check . && .venv/bin/ruff format --check .
    .venv/bin/mypy

# Run benchmarks/NAME.py: `just bench scan 10000`, `just bench quantize --write`.
bench NAME *ARGS:
    .venv/bin/python benchmarks/{{ NAME }}.py {{ ARGS }}

# Regenerate the parts of docs/ that the code determines.
docs:
    .venv/bin/python -m tests.support.generated

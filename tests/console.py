"""What a command line told."""

from typing import Any

RUNNING = "poise: running on "


def told(result: Any) -> str:
    """What stands on stderr of a result, without the line that says where the model runs."""
    return "".join(line for line in result.stderr.splitlines(keepends=True) if not line.startswith(RUNNING))

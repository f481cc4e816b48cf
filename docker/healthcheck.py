"""Ask the service whether it is well; whatever else the container runs is well while it runs."""

import sys
from pathlib import Path
from urllib.request import urlopen


def port_served(command: list[str]) -> int | None:
    """Return the port that a command line makes `spade-faiss serve` listen on, if it does."""
    if "serve" not in command:
        return None
    port = "8000"
    for option, value in zip(command, [*command[1:], ""], strict=True):
        if option == "--port":
            port = value
        elif option.startswith("--port="):
            port = option.removeprefix("--port=")
    return int(port)


def check(command_line: Path) -> None:
    """Exit with 1 if the process of this command line serves, but does not say that it is well."""
    port = port_served(command_line.read_text(errors="replace").split("\0"))
    if port is None:
        return
    try:
        urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
    except OSError as error:
        sys.exit(f"the service does not answer that it is well: {error}")


if __name__ == "__main__":
    check(Path("/proc/1/cmdline"))

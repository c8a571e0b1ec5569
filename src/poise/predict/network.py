"""What is read over a network: pictures as a whole, videos and streams with a limit to the silence."""

from __future__ import annotations

import urllib.request

MAX_DOWNLOAD = 200_000_000
"""Largest picture that is fetched from an address, bytes."""
_TIMEOUT = 15
"""Seconds that a network source may be silent."""


def fetch(address: str) -> bytes:
    """What is at an ``http://`` or ``https://`` address.

    Raises:
        ValueError: it is another kind of address, cannot be fetched, or is larger than `MAX_DOWNLOAD`.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address}: pictures are fetched from http:// and https:// addresses only")
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:  # noqa: S310  (checked above)
            data: bytes = answer.read(MAX_DOWNLOAD + 1)
    except OSError as error:
        raise ValueError(f"{address} cannot be fetched: {' '.join(str(error).split())}") from None
    if len(data) > MAX_DOWNLOAD:
        raise ValueError(f"{address} has more than {MAX_DOWNLOAD:,} bytes")
    return data


def stream_options(address: str) -> dict[str, str]:
    """Options of FFmpeg for what is read from an address; none for a file."""
    if "://" not in address:
        return {}
    options = {"timeout": str(_TIMEOUT * 1_000_000)}
    if address.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    return options

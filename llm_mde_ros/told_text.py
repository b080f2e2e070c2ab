"""Text from elsewhere, as the log and messages of ROS can take it."""

from __future__ import annotations

TOLD_CHARACTERS = 300  # of a sentence; a field of a message may have megabytes


def in_utf8(text: str) -> str:
    """
    Return the text with escapes for what UTF-8 cannot say; the log and messages raise at it.

    The names of files may have any bytes, and the text of JSON halves of a character: both are
    lone surrogates in Python, and come along in the text of errors.
    """
    return text.encode(errors='backslashreplace').decode()


def shortened(text: str) -> str:
    """Return at most TOLD_CHARACTERS of the text; its end, which says what to do, is kept."""
    if len(text) <= TOLD_CHARACTERS:
        return text
    half = TOLD_CHARACTERS // 2
    return f'{text[: half - 1]}…{text[-half:]}'

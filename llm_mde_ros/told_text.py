"""Text from elsewhere, as the log and messages of ROS can take it."""

from __future__ import annotations

TOLD_CHARACTERS = 300  # of a sentence; a field of a message may have megabytes
TOLD_OF_FILES = 1000  # these sentences name paths


def in_utf8(text: str) -> str:
    """
    Return the text with escapes for what UTF-8 cannot say; the log and messages raise at it.

    The names of files may have any bytes, and the text of JSON halves of a character: both are
    lone surrogates in Python, and come along in the text of errors.
    """
    return text.encode(errors='backslashreplace').decode()


def shortened(text: str, characters: int = TOLD_CHARACTERS) -> str:
    """Return at most so much of the text; its end, which says what to do, is kept."""
    if len(text) <= characters:
        return text
    half = characters // 2
    return f'{text[: half - 1]}…{text[-half:]}'

"""Text that came from outside, made safe to show on a terminal.

Answers, models' names, servers' errors and data are written by others. A terminal obeys what is in them: an
escape sequence fills the clipboard, clears the screen or hides text; a bidirectional override turns it round.
"""

from __future__ import annotations

import re

# C0 but for tab and line feed, DEL, C1, the soft hyphen, zero-width and bidirectional formatting, the line and
# paragraph separators, interlinear annotation, tags, and half a surrogate pair, which cannot be encoded.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Invisible by design, and common in honest text: emoji, Persian and Indic scripts, Windows line ends.
_DROPPED = frozenset("\r\xad\u200b\u200c\u200d\u2060\ufeff")


def printable(text: str) -> str:
    r"""Return a text without characters that a terminal obeys: spelled out, or dropped where invisible.

    Each character is looked at alone, so the pieces of a stream are as safe as the whole, however it is cut.

    Example:
        >>> print(printable("\x1b]0;title\x07 and \u202etxt.exe"))
        \x1b]0;title\x07 and \u202etxt.exe
    """
    return _UNPRINTABLE.sub(_spelled, text)


def printable_json(document: str) -> str:
    """Return a JSON document of the same meaning in which such characters stand as escapes."""
    return _UNPRINTABLE.sub(_escaped, document)


def _spelled(found: re.Match[str]) -> str:
    if found[0] in _DROPPED:
        return ""
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))

"""Control sequences of terminals, made harmless: of a log only text, tabs and ends of lines are left.

Two steps, as a secret must be looked for between them. `Neutral` drops what draws nothing, so that nothing invisible
can stand in the middle of a word. `Lines` then does what carriage returns and backspaces do on a screen: a progress bar
becomes its last state, and overstruck letters become letters.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

__all__ = ["Lines", "Neutral", "neutralise"]

STRING_CHARS_MAX: Final = 8192
"""A longer title, link or image of a terminal is shown as the text that it is."""
LINE_BYTES_MAX: Final = 64 * 1024
"""A longer line is cut: it would be held until its end."""

_STRING: Final = rf"[^\x07\x18\x1a\x1b\x9c\r\n]{{0,{STRING_CHARS_MAX}}}"
_PARAMETERS: Final = r"[0-?\x00-\t\x0b\x0c\x0e-\x17\x19\x1c-\x1f\x7f]{0,256}[ -/]{0,16}"
_ESCAPES: Final = (
    rf"(?:\x1b\[|\x9b){_PARAMETERS}[@-~]?"
    rf"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f]){_STRING}(?:\x07|\x1b\\|\x9c|\x18|\x1a)"
    r"|\x1b[ -/]{1,16}[0-~]|\x1b[78<=>DEHMNOPXZ\\^_cn-o|}~]"
)
_BREAKS: Final = "\x0b\x0c\x85\u2028\u2029"
"""Ends of lines by other names."""
_STARTS: Final = "\x1b\x90\x98\x9b\x9d-\x9f"
_INVISIBLE: Final = (
    "\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x8f\x91-\x97\x99\x9a\x9c"
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e00ff"
)
"""Controls, what turns the direction of text, and what takes no room."""
_JOINERS: Final = "\u034f\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""These make one sign of several, as emoji and Persian need it; behind an ASCII character they can only hide."""

_DROPPED: Final = re.compile(rf"{_ESCAPES}|\x1b[\[\]]?|[{_STARTS}]|[{_INVISIBLE}]+|[{_BREAKS}]")
_HIDING: Final = re.compile(rf"(?<=[!-~])[{_JOINERS}]+")
_SPECIAL: Final = re.compile(rf"[{_STARTS}{_INVISIBLE}{_BREAKS}{_JOINERS}]")
_UNFINISHED: Final = re.compile(
    rf"(?:\x1b(?:[ -/]{{0,16}}|\[{_PARAMETERS}|[\]PX^_]{_STRING}\x1b?)"
    rf"|\x9b{_PARAMETERS}|[\x90\x98\x9d\x9e\x9f]{_STRING}\x1b?)\Z"
)
_UNFINISHED_CHARS_MAX: Final = STRING_CHARS_MAX + 16
_WHOLE_OR_START: Final = re.compile(rf"{_ESCAPES}|[{_STARTS}]")


class Neutral:
    """Drops from a stream of UTF-8 what draws nothing. What is no UTF-8 becomes U+FFFD.

    Left are text, tabs, line feeds, carriage returns and backspaces; `Lines` sees to the last two.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._last = ""

    def feed(self, data: bytes) -> bytes:
        """Return what can be said for sure of the stream up to here."""
        # Text in UTF-16 reads as ASCII then, which is what a secret in it must be looked for as.
        return self._step(self._decoder.decode(data.replace(b"\0", b"")), last=False)

    def flush(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        return self._step(self._decoder.decode(b"", True), last=True)

    def _step(self, text: str, *, last: bool) -> bytes:
        text = self._held + text
        self._held = ""
        if _SPECIAL.search(text):
            if not last:
                at = _unfinished(text)
                text, self._held = text[:at], text[at:]
            # With the character before, as joiners are judged by it.
            before = self._last
            text = _HIDING.sub("", before + _DROPPED.sub(_instead, text))[len(before) :]
        if text:
            self._last = text[-1] if "!" <= text[-1] <= "~" else ""
        return text.encode("utf-8", "replace")


def _instead(found: re.Match[str]) -> str:
    return "\n" if found[0] in _BREAKS else ""


def _unfinished(text: str) -> int:
    """Return where a sequence begins that the end of `text` has cut off; the length, when none has."""
    start = max(0, len(text) - _UNFINISHED_CHARS_MAX)
    # Whole ones are stepped over, as what looks like a beginning may stand within one.
    for found in _WHOLE_OR_START.finditer(text, start):
        if _UNFINISHED.match(text, found.start()):
            return found.start()
    return len(text)


_RETURN: Final = re.compile(rb"\r(?!\n)")


class Lines:
    """Does what carriage returns and backspaces do on a screen; gives out whole lines.

    `partial` gives out the line that has not ended, for someone who watches: what the job takes back of it then is
    shown on a new line.
    """

    def __init__(self) -> None:
        self._held = b""
        self._shown = False
        """Whether the beginning of the line is out already."""

    def feed(self, data: bytes) -> bytes:
        """Return the lines that are complete."""
        text = self._held + data
        end = text.rfind(b"\n") + 1
        if len(text) - end > LINE_BYTES_MAX:
            end = _whole_characters(text, len(text) - 4)
        self._held = text[end:]
        return self._drawn(text[:end]) if end else b""

    def redraws(self, text: bytes) -> bool:
        """Whether `text` brings together what stood apart: ends of lines by carriage returns do not."""
        return any(b"\b" in part or _RETURN.search(part) for part in (text, self._held))

    def partial(self) -> bytes:
        """Return the line that is not complete, unless it is one that still changes."""
        if b"\r" in self._held or b"\b" in self._held:
            return b""
        return self.flush()

    def flush(self) -> bytes:
        """Return the line that is not complete."""
        text, self._held = self._held, b""
        return self._drawn(text) if text else b""

    def _drawn(self, text: bytes) -> bytes:
        shown, self._shown = self._shown, not text.endswith(b"\n")
        if b"\r" not in text and b"\b" not in text:
            return text
        lines = text.split(b"\n")
        drawn = [_drawn(line) if b"\r" in line or b"\b" in line else line for line in lines]
        first = lines[0].rstrip(b"\r")
        if shown and b"\r" in first:
            # What was shown cannot be taken back.
            drawn[0] = _struck_out(first.partition(b"\r")[0]) + b"\n" + drawn[0]
        return b"\n".join(drawn)


def _drawn(line: bytes) -> bytes:
    """Return what a line looks like in the end."""
    states = [state for state in line.split(b"\r") if state]
    return _struck_out(states[-1]) if states else b""


def _struck_out(line: bytes) -> bytes:
    """Return a line in which each backspace has taken the character before it."""
    if b"\b" not in line:
        return line
    left: list[tuple[str, int]] = []
    for part in re.finditer(r"([^\x08]*)(\x08*)", line.decode("utf-8", "replace")):
        left.append((part[1], len(part[1])))
        over = len(part[2])
        while over and left:
            text, length = left.pop()
            if length > over:
                left.append((text, length - over))
            over -= min(length, over)
    return "".join(text[:length] for text, length in left).encode()


def _whole_characters(text: bytes, end: int) -> int:
    """Return the greatest place up to `end` that does not stand within a character of UTF-8."""
    while end > 0 and text[end] & 0xC0 == 0x80:
        end -= 1
    return end


def neutralise(text: str) -> str:
    """Return a whole text made harmless."""
    neutral, lines = Neutral(), Lines()
    data = neutral.feed(text.encode("utf-8", "replace")) + neutral.flush()
    return (lines.feed(data) + lines.flush()).decode("utf-8", "replace")

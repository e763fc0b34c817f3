"""What a terminal shows after the bytes that a program wrote to it, with its history."""

from __future__ import annotations

import re
import unicodedata

_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(.)", re.DOTALL)


class Terminal:
    """As much of a terminal as the program uses; anything else is an error.

    Args:
        columns, rows: Its size.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns = columns
        self.rows = rows
        self.lines: list[str] = [""]  # history and screen
        self._row = 0
        self._column = 0

    def write(self, text: str) -> int:
        for parameter, command, character in _TOKEN.findall(text):
            if command:
                self._command(parameter, command)
            elif character == "\n":
                self._row, self._column = self._row + 1, 0
                if self._row == len(self.lines):
                    self.lines.append("")
            elif character == "\r":
                self._column = 0
            else:
                self._put(character)
        return len(text)

    @property
    def shown(self) -> list[str]:
        """History and screen without trailing blanks."""
        return [line.rstrip() for line in self.lines]

    def _command(self, parameter: str, command: str) -> None:
        if command == "A":
            # The cursor stops at the upper edge of the screen: what is above it is history.
            top = max(0, len(self.lines) - self.rows)
            self._row = max(top, self._row - int(parameter or 1))
        elif command == "K":
            self.lines[self._row] = self.lines[self._row][: self._column]
        elif command == "J":
            self.lines[self._row] = self.lines[self._row][: self._column]
            del self.lines[self._row + 1 :]
        else:
            assert command == "m", f"\\x1b[{parameter}{command}"

    def _put(self, character: str) -> None:
        assert character.isprintable(), repr(character)
        wide = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self._column + wide > self.columns:
            self.write("\n")
        line = self.lines[self._row].ljust(self._column)
        cell = character if wide == 1 else character + "\0"
        self.lines[self._row] = line[: self._column] + cell + line[self._column + wide :]
        self._column += wide

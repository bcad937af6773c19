"""What the sample package promises."""

from __future__ import annotations

import unittest

from greeting import WORDS, greet  # type: ignore[import-not-found]  # found from the sample's own folder


class Greeting(unittest.TestCase):
    """The one function there is."""

    def test_every_language_has_a_word_of_its_own(self) -> None:
        """No two greetings are alike."""
        self.assertEqual(len(WORDS), len({greet("Ada", language) for language in WORDS}))

    def test_spaces_around_a_name_are_dropped(self) -> None:
        """A name is greeted as it is spoken."""
        self.assertEqual("Hello, Ada!", greet("  Ada "))

    def test_an_empty_name_is_refused(self) -> None:
        """Nobody cannot be greeted."""
        with self.assertRaises(ValueError):
            greet("   ")

    def test_a_language_it_does_not_speak_is_refused(self) -> None:
        """The error names what it speaks."""
        with self.assertRaisesRegex(ValueError, "en, de, fr"):
            greet("Ada", "tlh")

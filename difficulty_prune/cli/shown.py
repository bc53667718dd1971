"""Text in a line, for terminals."""


def shown(text: object) -> str:
    r"""Text in a line: what cannot be printed, such as line breaks and marks of direction, as Python writes it.

    >>> print(shown("a\nb [x] é"))
    a\nb [x] é
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))

"""What an answer has used: the provider's own count, else what is known or guessed without it."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ostiary.gateway.bid import input_bound
from ostiary.gateway.settle import Book
from ostiary.ledger.events import UsageSource
from ostiary.providers.dialect import Reading
from ostiary.providers.tokens import Tokens

_BYTES_PER_TOKEN: Final = 4

Used = tuple[Tokens | None, UsageSource]


def used(book: Book, reading: Reading, likely: int) -> Used:
    """The provider's own count; what it did not count, or counted as nothing beside words, is estimated.

    `likely` are the output tokens of an answer as long as this one. A count by which a model with a price would have
    been free is none: it is paid by something else.
    """
    ask, told = book.call.ask, reading.tokens
    guess = reading.guess or ask.guess
    if guess is not None:
        return _weighed(book, told, guess, is_exact=reading.is_guess_exact)
    if told is None:
        if ask.is_deferred:
            return None, "none"
        return estimate(book, likely if ask.output_tokens != 0 else 0), "estimated"
    return (replace(told, output=likely), "estimated") if reading.is_undercounted else (told, "provider")


def _weighed(book: Book, told: Tokens | None, guess: Tokens, *, is_exact: bool) -> Used:
    price = book.target.price if book.target is not None else None
    if told is not None and (price is None or price.is_free or price.cost_nano(told)):
        return told, "provider"
    if price is not None and price.is_metered:
        return guess, "estimated"
    return replace(guess, input=0, output=0, audio=0), "provider" if is_exact else "estimated"


def estimate(book: Book, output: int) -> Tokens:
    """Tokens of an answer that did not tell: its input by the length of the body, never more than was held for."""
    target = book.target
    bound = input_bound(book.call, target.provider) if target else book.call.ask.size
    return Tokens(input=min(book.call.ask.size // _BYTES_PER_TOKEN + 1, bound), output=output)

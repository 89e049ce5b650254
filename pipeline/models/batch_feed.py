"""The caller's requests as batches take them: rows to be asked again first, and no row pulled
before there is a use for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from pipeline.records import Request


class Feed:
    """`None` from the caller means: nothing to ask until the answers so far have been read.

    A caller that says so twice, with no answer in between, waits for nothing: that is its end.
    """

    def __init__(self, requests: Iterable[Request | None]) -> None:
        self.again: deque[Request] = deque()
        self._requests = iter(requests)
        self._ended = False
        self._starved = False
        self._nones = 0

    def take(self) -> Request | None:
        """The next row, or None: not now."""
        if self.again:
            return self.again.popleft()
        if self._ended or self._starved:
            return None
        try:
            request = next(self._requests)
        except StopIteration:
            self._ended = True
            return None
        if request is None:
            self._starved = True
            self._nones += 1
        return request

    def __iter__(self) -> Iterator[Request | None]:
        """For the online model, which deals with None itself."""
        while True:
            self._starved = False
            request = self.take()
            if request is None and self._ended:
                return
            yield request

    @property
    def dry(self) -> bool:
        """There is nothing to ask now."""
        return not self.again and (self._ended or self._starved)

    @property
    def over(self) -> bool:
        """There will be nothing to ask, unless an answer that is still out changes that."""
        return not self.again and (self._ended or self._nones > 1)

    def answered(self) -> None:
        self._starved, self._nones = False, 0

    def retry(self) -> None:
        """Every answer has been read: the caller may know more now."""
        self._starved = False

"""How hard an endpoint may be driven: in-flight window, send pace, ceilings per minute, waits.

Nothing here reads a clock: every method takes `now` (seconds of any monotonic clock), so the
controllers can be tested in simulated time.
"""

from __future__ import annotations

import math
import random

from pipeline.records import Request, Usage

START = 16  # requests in flight before anything is known about an endpoint
RAMP_SECONDS = 0.1  # time to double until the first refusal; a limiter refuses at once, so this
# needs no answer to come back, and a slow teacher is at full width in half a second
GROWTH = 0.03  # additive increase a round or a second, as a share of the window after the last cut
SMALLEST_CUT = 0.06
FASTER_AFTER = 10.0  # seconds without a cut after which the increase doubles, again and again
MIN_OUTCOMES = 50  # a round of control is judged on at least so many, unless it is plain anyway
PLAIN_SHARE = 0.3
MOST_TOLERATED = 0.15  # more refusals than that are always taken for load


class TokenBucket:
    """A ceiling per minute. It may run into debt, so one costly request cannot wait for ever."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.rate = per_minute / 60.0
        self.full = max(1.0, self.rate)  # one second's worth: providers meter in short slices
        self.level = self.full
        self.filled = now

    def _fill(self, now: float) -> None:
        self.level = min(self.full, self.level + (now - self.filled) * self.rate)
        self.filled = now

    def ready_at(self, now: float) -> float:
        """When the next request may be sent; `now` if at once."""
        self._fill(now)
        return now if self.level > 0 else now + (1e-3 - self.level) / self.rate

    def take(self, amount: float, now: float) -> None:
        self._fill(now)
        self.level -= amount

    def give(self, amount: float) -> None:
        """Return what an estimate was too high by (negative: too low)."""
        self.level = min(self.full, self.level + amount)


class Ceilings:
    """Requests and tokens a minute, over all endpoints (a provider counts by key)."""

    def __init__(self, requests: int | None, tokens: int | None, now: float) -> None:
        self._requests = TokenBucket(requests, now) if requests else None
        self._tokens = TokenBucket(tokens, now) if tokens else None

    def ready_at(self, now: float) -> float:
        at = now
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                at = max(at, bucket.ready_at(now))
        return at

    def charge(self, request: Request, now: float) -> float:
        """Take what the request may cost; returns the tokens it was taken for."""
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is None:
            return 0.0
        letters = sum(len(message.content) for message in request.messages)
        cost = letters / 4 + request.sampling.max_tokens
        self._tokens.take(cost, now)
        return cost

    def correct(self, cost: float, usage: Usage) -> None:
        """Replace the estimate by what the answer really took, if the server tells."""
        if self._tokens is not None and usage.output:
            self._tokens.give(cost - usage.input - usage.output)


class Window:
    """Adaptive concurrency of one endpoint: additive increase, multiplicative decrease.

    Until the first refusal (429, 503, 529, a time-out) the window doubles every RAMP_SECONDS.
    Then each round of control, at most one a round trip, cuts it in proportion to the share of
    refusals, and it grows back linearly. After a refusal requests are also paced at
    window / round trip, which makes fractions of a request in flight mean something and keeps
    instant refusals from being hammered.

    Some refusals are not about load (a gateway that refuses 5 % of everything). Cutting would only
    slow the job down, so a descent is checked: if the good answers per second fell along with
    the window and the share of refusals did not, the window is restored and that share is
    tolerated from then on.
    """

    def __init__(self, ceiling: int, start: int = START) -> None:
        self.ceiling = ceiling
        self.limit = float(min(ceiling, start))
        self.in_flight = 0
        self.round_trip = 0.0  # seconds, moving average over good answers
        self.tolerated = 0.0  # share of refusals known not to come from load
        self._tolerated_most = 0.0
        self._ramping = True
        self._paced = False
        self._next_send = 0.0
        self._answers = 0
        self._grown: float | None = None
        self._cut = -math.inf
        self._slope = 0.0
        self._round = 0.0  # when this round of control began, and what it has seen
        self._good = 0
        self._refused = 0
        self._descent: tuple[float, float] | None = None  # window and good/s where it began
        self._descent_total = self._descent_refused = 0
        self._bad_rounds = self._clean_rounds = 0

    def ready_at(self, now: float) -> float:
        """When one more may be sent: `now`, a later time, or inf (an answer must come first)."""
        self._grow(now)
        if self.in_flight >= math.ceil(self.limit - 1e-9):
            if self._ramping and self.limit < self.ceiling:
                return now + RAMP_SECONDS * math.log2((self.in_flight + 0.01) / self.limit)
            return math.inf
        return max(now, self._next_send)

    def sent(self, now: float) -> None:
        self.in_flight += 1
        if self._paced:
            # up to 10 ms of unused sends may be made up for: timers are no finer than 1 ms
            step = self.round_trip / self.limit
            self._next_send = max(self._next_send, now - 0.01) + step

    def left(self) -> None:
        """A request ended in a way that says nothing about load."""
        self.in_flight -= 1

    def answered(self, now: float, seconds: float) -> None:
        self.in_flight -= 1
        self._good += 1
        self._answers = min(self._answers + 1, 200)
        self.round_trip += (seconds - self.round_trip) / self._answers
        if self._good >= MIN_OUTCOMES and now - self._round >= self._round_seconds():
            self._judge(now)

    def refused(self, now: float) -> None:
        self.in_flight -= 1
        self._refused += 1
        if self._ramping and not self.tolerated:
            self._end_ramp()
        total = self._good + self._refused
        plain = self._refused >= 5 and self._refused >= PLAIN_SHARE * total
        if (total >= MIN_OUTCOMES or plain) and now - self._round >= self._round_seconds():
            self._judge(now)

    def _end_ramp(self) -> None:
        self._ramping = False
        self._paced = True
        round_seconds = self.round_trip * max(1.0, MIN_OUTCOMES / self.limit)
        self._slope = GROWTH * self.limit / max(round_seconds, 1.0)

    def _round_seconds(self) -> float:
        """A cut shows after a round trip; before the first answer that is unknown: one cut only."""
        if not self._answers and self._cut > -math.inf:
            return math.inf
        return max(self.round_trip, 0.1)

    def _grow(self, now: float) -> None:
        if self._grown is None:
            self._grown = self._round = now
        # the loop may have stood still while the caller worked: that was no quiet time
        elapsed = min(now - self._grown, RAMP_SECONDS)
        self._grown = now
        if self.limit >= self.ceiling:
            return
        if self._ramping:
            self.limit *= 2.0 ** (elapsed / RAMP_SECONDS)
        else:
            doublings = min(int((now - self._cut) / FASTER_AFTER), 6) if self._cut > 0 else 0
            self.limit += self._slope * 2.0**doublings * elapsed
        if self.limit >= self.ceiling:
            self.limit = float(self.ceiling)
            self._paced = False
            self._next_send = 0.0

    def _judge(self, now: float) -> None:
        """End a round: cut, keep, or find that cutting does not help."""
        refused, total = self._refused, self._good + self._refused
        share = refused / total
        rate = self._good / max(now - self._round, 1e-6)
        self._descent_total += total
        self._descent_refused += refused
        self._good = self._refused = 0
        self._round = now
        allowed = 0.0
        if self.tolerated:
            allowed = 1.5 * self.tolerated + 0.02 + 2 * math.sqrt(self.tolerated / total)
        if share <= allowed:
            if self.tolerated:
                moved = self.tolerated + 0.1 * (share - self.tolerated)
                self.tolerated = moved if moved > 0.002 else 0.0
                self.tolerated = min(self.tolerated, self._tolerated_most)
            self._clean_rounds += share == 0.0
            if self._clean_rounds >= 3:
                self._descent = None
                self._bad_rounds = 0
            return
        self._clean_rounds = 0
        if self._cutting_is_vain(share, rate):
            return
        cut = share if share > PLAIN_SHARE else max(share / 2, SMALLEST_CUT)
        self.limit = max(1.0, self.limit * (1 - min(cut, 0.5)))
        self._cut = now
        self._end_ramp()

    def _cutting_is_vain(self, share: float, rate: float) -> bool:
        """Follow a descent of the window; True when it is undone because it did not help.

        The first bad round is left out of the comparison: a limiter's saved-up burst makes its
        good answers look plentiful.
        """
        self._bad_rounds += 1
        if self._bad_rounds == 1:
            return False
        if self._descent is None or share > MOST_TOLERATED * 2:
            self._descent = (self.limit, rate)
            self._descent_total = self._descent_refused = 0
            return False
        before, rate_before = self._descent
        if self.limit > 0.82 * before:
            return False
        seen = max(self._descent_total, 1)
        overall = self._descent_refused / seen
        self._descent = (self.limit, rate)
        self._descent_total = self._descent_refused = 0
        if rate > 0.92 * rate_before or overall > MOST_TOLERATED or share < overall / 3:
            return False
        self.tolerated = self._tolerated_most = overall + math.sqrt(overall / seen)
        self.limit = before
        self._ramping = True
        self._descent = None
        return True


def backoff(failures: int, retry_after: float | None, most: float = 60.0) -> float:
    """Seconds to wait before try `failures` + 1: what the server said, or full jitter."""
    if retry_after is not None:
        return min(retry_after, 300.0) + random.uniform(0, min(0.1 * retry_after + 0.05, 5.0))
    return random.uniform(0, min(most, 0.25 * 2.0**failures))

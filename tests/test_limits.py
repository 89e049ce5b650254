"""The window against simulated servers: how much of what they allow is used, at what refusals."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from pipeline.models.limits import TokenBucket, Window, backoff

Refuses = Callable[[float, int], bool]  # (now, requests inside) -> whether it says 429


def simulate(
    window: Window, refuses: Refuses, *, latency: float, seconds: float, after: float
) -> tuple[float, float]:
    """Good answers a second and share of refusals, both counted from `after` on."""
    now, serial, inside = 0.0, 0, 0
    events: list[tuple[float, int, float, bool]] = []
    good = refused = 0
    while now < seconds:
        ready = window.ready_at(now)
        if ready <= now:
            window.sent(now)
            serial += 1
            no = refuses(now, inside)
            inside += not no
            heapq.heappush(events, (now + (0.001 if no else latency), serial, now, no))
            continue
        now = min(ready, events[0][0] if events else ready)
        while events and events[0][0] <= now:
            _, _, sent, no = heapq.heappop(events)
            if no:
                window.refused(now)
                refused += now >= after
            else:
                inside -= 1
                window.answered(now, now - sent)
                good += now >= after
    return good / (seconds - after), refused / max(good + refused, 1)


def rate_limit(per_second: float) -> Refuses:
    level, filled = 0.1 * per_second, 0.0

    def refuses(now: float, _: int) -> bool:
        nonlocal level, filled
        level = min(0.1 * per_second, level + (now - filled) * per_second)
        filled = now
        if level < 1:
            return True
        level -= 1
        return False

    return refuses


def test_an_unknown_rate_limit_is_used_up_with_few_refusals() -> None:
    rate, refused = simulate(Window(64), rate_limit(300), latency=0.05, seconds=60, after=30)
    assert rate >= 0.95 * 300
    assert refused <= 0.02


def test_a_limit_far_below_the_ceiling_is_found() -> None:
    rate, refused = simulate(Window(512), rate_limit(40), latency=0.05, seconds=60, after=30)
    assert rate >= 0.9 * 40
    assert refused <= 0.03


def test_a_limit_on_concurrency_is_found() -> None:
    rate, refused = simulate(
        Window(256), lambda _, inside: inside >= 40, latency=2.0, seconds=120, after=60
    )
    assert rate >= 0.9 * 20
    assert refused <= 0.05


def test_refusals_that_do_not_come_from_load_do_not_slow_the_job_down() -> None:
    dice = random.Random(1)
    rate, _ = simulate(
        Window(64), lambda *_: dice.random() < 0.05, latency=0.05, seconds=20, after=5
    )
    assert rate >= 0.9 * 64 / 0.05


def test_a_limit_that_drops_is_followed() -> None:
    high, low = rate_limit(600), rate_limit(150)
    rate, refused = simulate(
        Window(64),
        lambda now, inside: (high if now < 20 else low)(now, inside),
        latency=0.05,
        seconds=60,
        after=30,
    )
    assert rate >= 0.95 * 150
    assert refused <= 0.02


def test_a_slow_teacher_is_at_full_width_long_before_its_first_answer() -> None:
    window, now, sent = Window(512), 0.0, 0
    while now < 1.0:
        at = window.ready_at(now)
        if at <= now:
            window.sent(now)
            sent += 1
        else:
            now = at
    assert sent == 512


def test_a_bucket_keeps_the_rate_and_lets_a_costly_request_through_once() -> None:
    bucket, now, taken = TokenBucket(600, 0.0), 0.0, 0
    while (now := bucket.ready_at(now)) < 60.0:
        bucket.take(1, now)
        taken += 1
    assert 600 <= taken <= 615
    bucket = TokenBucket(600, 0.0)
    bucket.take(1000, 0.0)  # far above the ceiling, and yet it went
    assert 95 < bucket.ready_at(0.0) < 105


def test_waits_grow_are_spread_and_obey_the_server() -> None:
    early = [backoff(1, None) for _ in range(500)]
    late = [backoff(6, None) for _ in range(500)]
    assert max(early) <= 0.5 and max(late) <= 16
    assert sum(late) > 10 * sum(early)
    assert min(late) < 2 and max(late) > 12  # full jitter: no two clients come back together
    assert max(backoff(50, None) for _ in range(99)) <= 60
    assert all(7 <= backoff(9, 7.0) <= 8 for _ in range(99))

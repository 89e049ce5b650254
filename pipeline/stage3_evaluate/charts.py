"""The report's charts as inline SVG: no library, no network, readable in light, dark and print.

Colours come from the page's CSS by class (`arm-before`), so one chart fits every colour scheme;
arms differ in marker shape as well, for a reader or a printer without colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from pipeline.config_evaluate import TRAINED

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 34


class Point(NamedTuple):
    """A value with its interval, all shares of 1, at a place on the x axis."""

    place: int
    value: float
    low: float
    high: float


class Line(NamedTuple):
    """`arm` gives the colour; `name` is what it is called, where that is something else."""

    arm: str
    points: Sequence[Point]
    name: str = ""

    @property
    def called(self) -> str:
        return self.name or self.arm


def percent(value: float) -> str:
    """ "61%", with the sign in Unicode."""
    return f"{'−' if round(100 * value) < 0 else ''}{abs(100 * value):.0f}%"


def curve(
    title: str,
    places: Sequence[str],
    lines: Sequence[Line],
    x_name: str,
    chance: float | None = None,
) -> Markup:
    """A line an arm over evenly spaced places, with error bars; a broken line at chance."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(places))
    body: list[Markup] = [_percent_grid()]
    for number, name in enumerate(places):
        body.append(_text(LEFT + step * (number + 0.5), HEIGHT - 18, name, "tick middle"))
    body.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 3, x_name, "axis middle"))
    if chance:
        y = _y(chance)
        level = Markup('<line class="chance" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        body.append(level.format(LEFT, WIDTH - RIGHT, y, y))
        body.append(_text(WIDTH - RIGHT, y + 11, f"chance {percent(chance)}", "tick end"))
    for number, line in enumerate(lines):
        # Arms stand a little apart, so that their error bars can be told from each other.
        shift = (number - (len(lines) - 1) / 2) * 7
        at = [(LEFT + step * (p.place + 0.5) + shift, p) for p in line.points]
        path = " ".join(f"{x:.1f},{_y(p.value):.1f}" for x, p in at)
        body.append(
            Markup('<polyline class="line {}" points="{}"/>').format(arm_class(line.arm), path)
        )
        for x, point in at:
            body.append(_whisker(x, point.low, point.high, line.arm))
            label = f"{line.called}, {x_name} {places[point.place]}: {_spoken(point)}"
            body.append(_marker(x, _y(point.value), line.arm, number, label))
    return _svg(title, body)


def bars(title: str, groups: Sequence[str], lines: Sequence[Line]) -> Markup:
    """Grouped bars with error bars: a group for each name, a bar for each arm."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    width = min(34.0, step * 0.8 / max(1, len(lines)))
    body: list[Markup] = [_percent_grid()]
    for number, name in enumerate(groups):
        body.append(_text(LEFT + step * (number + 0.5), HEIGHT - 16, name, "tick middle"))
    for number, line in enumerate(lines):
        for point in line.points:
            centre = LEFT + step * (point.place + 0.5)
            x = centre + (number - (len(lines) - 1) / 2) * width
            label = f"{line.called}, {groups[point.place]}: {_spoken(point)}"
            shape = Markup(
                '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2">'
                "<title>{}</title></rect>"
            )
            y = _y(point.value)
            body.append(
                shape.format(arm_class(line.arm), x - width / 2 + 1, y, width - 2, _y(0) - y, label)
            )
            body.append(_whisker(x, point.low, point.high, "bar"))
            top = min(_y(point.high), y) - 4
            body.append(_text(x, top, f"{100 * point.value:.0f}", "value middle"))
    return _svg(title, body)


def dumbbell(before: Point, after: Point, teacher: float | None) -> Markup:
    """A strip from 0 to 100%: before and after with intervals, and a tick for the teacher."""
    width, height, pad = 320, 46, 8

    def x(value: float) -> float:
        return pad + value * (width - 2 * pad)

    body = [
        Markup('<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="22" y2="22"/>').format(x(0), x(1))
    ]
    for share in (0.0, 0.5, 1.0):
        place = "start" if share == 0 else "end" if share == 1 else "middle"
        body.append(_text(x(share), 43, percent(share), f"tick {place}"))
    if teacher is not None:
        mark = Markup('<line class="tick-teacher" x1="{0:.1f}" x2="{0:.1f}" y1="10" y2="34">')
        body.append(
            mark.format(x(teacher))
            + Markup("<title>teacher: {}</title></line>").format(percent(teacher))
        )
    for point, arm in ((before, "before"), (after, "after")):
        span = Markup('<line class="span {}" x1="{:.1f}" x2="{:.1f}" y1="22" y2="22"/>')
        body.append(span.format(arm_class(arm), x(point.low), x(point.high)))
    for number, (point, arm) in enumerate(((before, "before"), (after, "after"))):
        body.append(_marker(x(point.value), 22, arm, number + 1, f"{arm}: {_spoken(point)}", 5.5))
    return _svg("from before to after", body, width, height)


def against_tokens(title: str, lines: Sequence[Line], teacher: float | None) -> Markup:
    """Lines over the tokens that a teacher was paid for (a point's place), from none on."""
    last = max((point.place for line in lines for point in line.points), default=0) or 1

    def x(tokens: float) -> float:
        return LEFT + 14 + tokens / last * (WIDTH - LEFT - RIGHT - 44)

    body: list[Markup] = [_percent_grid()]
    for part in (0.0, 0.5, 1.0):
        body.append(_text(x(part * last), HEIGHT - 18, _short(part * last), "tick middle"))
    name = "the teacher's tokens, questions and answers"
    body.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 3, name, "axis middle"))
    if teacher is not None:
        level = Markup('<line class="chance" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        body.append(level.format(LEFT, WIDTH - RIGHT, _y(teacher), _y(teacher)))
        words = f"teacher {percent(teacher)}"
        body.append(_text(WIDTH - RIGHT, _y(teacher) - 4, words, "tick end"))
    for number, line in enumerate(lines):
        path = " ".join(f"{x(p.place):.1f},{_y(p.value):.1f}" for p in line.points)
        shape = Markup('<polyline class="line {}" points="{}"/>')
        body.append(shape.format(arm_class(line.arm), path))
        for point in line.points:
            at = x(point.place) + 5 * number
            body.append(_whisker(at, point.low, point.high, line.arm))
            label = f"{line.called}, {point.place:,} tokens: {_spoken(point)}"
            body.append(_marker(at, _y(point.value), line.arm, number, label))
    return _svg(title, body)


def _short(tokens: float) -> str:
    """ "201 k" for 200,710."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if tokens >= size:
            return f"{tokens / size:.3g} {unit}"
    return f"{tokens:.0f}"


def loss_curve(
    train: Sequence[tuple[int, float]], held: Sequence[tuple[int, float]], first: int = 0
) -> Markup:
    """Loss against optimizer step from `first`: training as a line, validation as points."""
    width, height = 440, 220
    every = [*train, *held]
    last = max(max(step for step, _ in every), first + 1)
    top = max(loss for _, loss in every) * 1.08 or 1.0
    bottom = min(0.0, min(loss for _, loss in every))

    def at(step: int, loss: float) -> tuple[float, float]:
        x = LEFT + (step - first) / (last - first) * (width - LEFT - RIGHT)
        return x, TOP + (top - loss) / (top - bottom) * (height - TOP - BOTTOM)

    body: list[Markup] = []
    for part in range(5):
        loss = bottom + (top - bottom) * part / 4
        y = at(0, loss)[1]
        body.append(_grid_line(y, width))
        body.append(_text(LEFT - 6, y + 4, f"{loss:.2f}", "tick end"))
    for part in range(5):
        step = round(first + (last - first) * part / 4)
        place = "middle" if part < 4 else "end"
        body.append(_text(at(step, 0)[0], height - 18, f"{step:,}", f"tick {place}"))
    body.append(_text(LEFT + (width - LEFT) / 2, height - 3, "optimizer step", "axis middle"))
    points = " ".join("{:.1f},{:.1f}".format(*at(step, loss)) for step, loss in train)
    body.append(Markup('<polyline class="line arm-after" points="{}"/>').format(points))
    for step, loss in held:
        x, y = at(step, loss)
        body.append(_marker(x, y, "before", 1, f"validation, step {step}: {loss:.3f}", 4.5))
    return _svg("training loss", body, width, height)


def _y(value: float) -> float:
    return TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)


def _spoken(point: Point) -> str:
    return f"{percent(point.value)} (95%: {percent(point.low)} to {percent(point.high)})"


def arm_class(arm: str) -> str:
    """The CSS class that colours an arm."""
    if arm in ("teacher", "before", "after"):
        return f"arm-{arm}"
    if arm == "before_again":
        return "arm-again"
    for beginning in TRAINED:
        if arm.startswith(beginning):
            return f"arm-{beginning.rstrip('-')}"
    return "arm-other"


def _percent_grid() -> Markup:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_grid_line(_y(share), WIDTH))
        parts.append(_text(LEFT - 6, _y(share) + 4, f"{100 * share:.0f}%", "tick end"))
    return Markup("").join(parts)


def _grid_line(y: float, width: float) -> Markup:
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    return line.format(LEFT, width - RIGHT, y, y)


def _text(x: float, y: float, text: str, classes: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, classes, text)


def _whisker(x: float, low: float, high: float, arm: str) -> Markup:
    shape = Markup('<path class="whisker {}" d="M{:.1f} {:.1f}V{:.1f}"/>')
    return shape.format("on-bar" if arm == "bar" else arm_class(arm), x, _y(low), _y(high))


def _marker(x: float, y: float, arm: str, shape: int, label: str, size: float = 4.0) -> Markup:
    classes = f"marker {arm_class(arm)}"
    outline = [
        f"M{x - size:.1f} {y:.1f}a{size} {size} 0 1 0 {2 * size} 0"
        f"a{size} {size} 0 1 0 -{2 * size} 0z",
        f"M{x:.1f} {y - size * 1.3:.1f}l{size * 1.3} {size * 1.3}l-{size * 1.3} {size * 1.3}"
        f"l-{size * 1.3} -{size * 1.3}z",
        f"M{x - size:.1f} {y - size:.1f}h{2 * size}v{2 * size}h-{2 * size}z",
    ][shape % 3]
    found = Markup('<path class="{}" d="{}"><title>{}</title></path>')
    return found.format(classes, outline, label)


def _svg(title: str, body: Sequence[Markup], width: int = WIDTH, height: int = HEIGHT) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        width, height, escape(title)
    )
    return head + Markup("").join(body) + Markup("</svg>")

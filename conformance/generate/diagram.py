"""The states of a decoder session as a picture (6.11)."""

WIDTH, HEIGHT, TALL = 1000, 430, 44
# name: (left, top, width)
STATES = {
    "header": (60, 50, 120), "joining": (60, 190, 120), "chunks": (330, 110, 140), "waiting": (330, 320, 140),
    "seek index": (630, 50, 120), "footer": (830, 50, 110), "ended": (830, 190, 110), "failed": (630, 320, 120),
}
START = (20, ("header", "joining"))
# from, side, to, side, label lines, where the label's first line stands
ARROWS = [
    ("header", "right", "chunks", "left", ["stream header"], (215, 82)),
    ("joining", "right", "chunks", "left", ["context reset or", "model switch"], (240, 204)),
    ("chunks", "right", "seek index", "left", ["end chunk of a file"], (500, 60)),
    ("chunks", "right", "ended", "left", ["end chunk of a byte stream", "or of messages"], (520, 200)),
    ("seek index", "right", "footer", "left", ["seek index"], (760, 64)),
    ("footer", "bottom", "ended", "top", ["footer"], (895, 148)),
]


def anchor(name, side):
    left, top, width = STATES[name]
    return {"left": (left, top + TALL / 2), "right": (left + width, top + TALL / 2),
            "top": (left + width / 2, top), "bottom": (left + width / 2, top + TALL)}[side]


def text(x, y, words, style="", place="start"):
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{place}"{style}>{words}</text>'


def line(*points, dashed=False):
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="#333"{dash} marker-end="url(#head)"/>'


def loop(name, words, below=True):
    """An arrow from a state back to itself."""
    left, top, width = STATES[name]
    edge, away = (top + TALL, 26) if below else (top, -26)
    a, b = left + width * 0.3, left + width * 0.7
    out = [line((a, edge), (a, edge + away), (b, edge + away), (b, edge))]
    for i, word in enumerate(words):
        out.append(text(left + width / 2, edge + away + (16 + 15 * i if below else -6 - 15 * (len(words) - 1 - i)), word,
                        place="middle"))
    return out


def session():
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12">',
        '<title>States of a decoder session</title>',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#333"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for name in START[1]:
        x, y = anchor(name, "left")
        out += [f'<circle cx="{START[0]}" cy="{y:g}" r="6" fill="#333"/>', line((START[0] + 6, y), (x, y))]
    for begin, side, end, other, label, (x, y) in ARROWS:
        out.append(line(anchor(begin, side), anchor(end, other)))
        out += [text(x, y + 15 * i, words) for i, words in enumerate(label)]
    # to waiting and back
    left, top, width = STATES["chunks"]
    low = STATES["waiting"][1]
    out += [line((left + 15, top + TALL), (left + 15, low)), line((left + width - 15, low), (left + width - 15, top + TALL))]
    out += [text(left + 8, 262, "a chunk lacks side indices,", place="end"),
            text(left + 8, 277, "or frames are overdue for it", place="end"),
            text(left + width - 8, 262, "the caller gave the indices or concealed"),
            text(left + width - 8, 277, "the frames, or these came as datagrams")]
    out += loop("chunks", ["every other chunk"], below=False)
    out += loop("ended", ["targets", "(layered mode)"])
    # to failed, from everywhere
    x, y = anchor("failed", "left")
    out += [line((x - 60, y), (x, y), dashed=True), text(x - 66, y - 4, "any error", place="end"),
            text(x - 66, y + 12, "in any state", place="end")]
    for name, (left, top, width) in STATES.items():
        final = name in ("ended", "failed")
        fill = {"failed": "#fbe3e0", "ended": "#e4efdc"}.get(name, "#e3ecf7")
        out.append(f'<rect x="{left}" y="{top}" width="{width}" height="{TALL}" rx="8" fill="{fill}" stroke="#333" '
                   f'stroke-width="{2 if final else 1}"/>')
        out.append(text(left + width / 2, top + TALL / 2 + 5, name, ' font-size="14"', "middle"))
    return "\n".join([*out, "</svg>"]) + "\n"

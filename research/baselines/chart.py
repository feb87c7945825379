"""A picture of bits over divergence, as SVG."""
import math

COLOURS = {"eigenbasis": "#2ca02c", "eigenbasis, Fisher weights": "#d62728", "random rotation": "#9467bd",
           "eigenbasis, Fisher weights, Y by rate": "#17becf",
           "eigenbasis, Fisher weights, Y by rate, tokens known": "#e377c2",
           "static tables a channel": "#ff7f0e", "general compressor, a sequence alone": "#bcbd22",
           "general compressor, all frames together": "#8c564b",
           "random rotation, codes of 2 to 5 bits": "#7f7f7f",
           "midspan fit, 512 frames a chunk": "#e377c2"}
CODEC = ["#1f77b4", "#17becf"]
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 960, 480, 70, 40, 340, 50


def draw(path, result):
    """Writes the picture of a result of run.py."""
    curves, points = {}, result["codec"]
    for kind in dict.fromkeys(p.get("codec", "") for p in points):
        own = [p for p in points if p.get("codec", "") == kind]
        curves[f"midspan {kind}".strip()] = [(p["bits"], p["divergence"]) for p in own]
        if kind != "with tokens":
            for name in points[0]["integers"]:
                curves[f"integers: {name}"] = [(p["baselines"][name], p["divergence"]) for p in own]
    for name, found in {**result["curves"], **result["points"]}.items():
        curves[name] = [(p["bits"], p["divergence"]) for p in found]
    low, high = (f(p["divergence"] for p in points) for f in (min, max))
    all_bits = [b for c in curves.values() for b, d in c if low / 2 <= d <= high * 2]
    x_range = (math.log(min(all_bits) * 0.9), math.log(max(all_bits) * 1.1))
    y_range = (math.log(low / 2), math.log(high * 2))

    def place(bits, divergence):
        x, y = ((math.log(v) - r[0]) / (r[1] - r[0]) for v, r in ((bits, x_range), (divergence, y_range)))
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
           f'font-size="12"><rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="22" font-size="15">{result["host"]}: bits a frame over divergence</text>']

    def text(x, y, words, anchor="middle"):
        out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>')

    def line(ends, colour, dashes=""):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6" {dashes}/>')

    for exponent in range(-6, 2):
        if y_range[0] <= math.log(10) * exponent <= y_range[1]:
            x, y = place(math.exp(x_range[0]), 10.0**exponent)
            line([(x, y), (WIDTH - RIGHT, y)], "#dddddd")
            text(x - 6, y + 4, f"{10.0 ** exponent:g}", "end")
    for bits in (v * 10**e for e in range(1, 4) for v in (1, 2, 3, 5)):
        if x_range[0] <= math.log(bits) <= x_range[1]:
            x, y = place(bits, math.exp(y_range[0]))
            line([(x, y), (x, TOP)], "#dddddd")
            text(x, y + 16, bits)
    text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 12, "bits a frame")
    out.append(f'<text transform="translate(16,{HEIGHT / 2}) rotate(-90)" text-anchor="middle">divergence, nats</text>')
    codecs, row = iter(CODEC), 0
    for name, found in curves.items():
        colour = next(codecs) if name.startswith("midspan") and name not in COLOURS else COLOURS.get(name.removeprefix("integers: "), "#111111")
        dashes = 'stroke-dasharray="5 3"' if name.startswith("integers") else ""
        seen = sorted(place(b, d) for b, d in found if low / 2 <= d <= high * 2)
        if len(seen) > 1:
            line(seen, colour, dashes)
        for x, y in seen:
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        if len(found) == 1:  # a point has its name beside it
            for x, y in seen:
                text(x - 6, y - 6 if "," in name else y + 16, name, "end")
            continue
        y, row = TOP + 10 + 18 * row, row + 1
        line([(WIDTH - RIGHT + 10, y), (WIDTH - RIGHT + 30, y)], colour, dashes)
        text(WIDTH - RIGHT + 36, y + 4, name, "start")
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n</svg>\n")

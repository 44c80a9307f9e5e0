# SPDX-License-Identifier: Apache-2.0
"""The plots, drawn by gnuplot as SVG and PNG. A plot is a dict with name, title, kind:

    lines   xlabel, ylabel, series [{"title", "points" [[x, y]]}], marks [[x, text]], logx, logy
    points  the same, as dots
    bars    ylabel, labels, series [{"title", "values", "low", "high"}]
"""

from harness.base import which
from harness.procs import run

COLOURS = ["#0060ad", "#dd181f", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#7f7f7f"]


def quoted(text):
    """A text as gnuplot takes it."""
    return '"' + text.replace("\\", "/").replace('"', "'") + '"'


def block(name, rows):
    lines = [" ".join(f"{v:.9g}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    return f"${name} << EOD\n" + "\n".join(lines) + "\nEOD\n"


def curves(plot):
    """lines and points."""
    dots = plot["kind"] == "points"
    script = ""
    parts = []
    for i, series in enumerate(plot["series"]):
        if not series["points"]:
            continue
        script += block(f"data{i}", series["points"])
        style = ("with points pt 7 ps 0.4" if dots else "with lines lw 2")
        parts.append(f"$data{i} using 1:2 {style} lc rgb '{COLOURS[i % len(COLOURS)]}'"
                     f" title {quoted(series['title'])}")
    if not parts:
        return None
    for x, text in plot.get("marks", []):
        script += (f"set arrow from {x}, graph 0 to {x}, graph 1 nohead dt 2 lc rgb '#555555'\n"
                   f"set label {quoted(text)} at {x}, graph 0.98 rotate by 90 right offset -0.7,0"
                   f" font ',9' noenhanced\n")
    for axis in ("x", "y"):
        if plot.get(f"log{axis}"):
            script += f"set logscale {axis}\n"
        if plot.get(f"{axis}range"):
            low, high = plot[f"{axis}range"]
            script += f"set {axis}range [{low}:{high}]\n"
    script += (f"set xlabel {quoted(plot['xlabel'])}\nset ylabel {quoted(plot['ylabel'])}\n"
               "set key noenhanced outside right top\nset grid lc rgb '#dddddd'\n")
    return script + "plot " + ", \\\n  ".join(parts) + "\n"


def bars(plot):
    script = ""
    parts = []
    for i, series in enumerate(plot["series"]):
        rows = []
        for label, value, low, high in zip(plot["labels"], series["values"], series["low"],
                                           series["high"]):
            if value is None:
                rows.append([f'"{label}"', "NaN", "NaN", "NaN"])
            else:
                rows.append([f'"{label}"', float(value), float(low), float(high)])
        script += block(f"data{i}", rows)
        parts.append(f"$data{i} using 2:3:4:xtic(1) title {quoted(series['title'])}"
                     f" lc rgb '{COLOURS[i % len(COLOURS)]}'")
    script += ("set style data histograms\nset style histogram errorbars gap 1 lw 1\n"
               "set style fill solid 0.8 border -1\nset yrange [0:*]\nset xtics rotate by -30\n"
               f"set ylabel {quoted(plot['ylabel'])}\nset grid y lc rgb '#dddddd'\n"
               "set key noenhanced outside right top\nset xtics noenhanced\n")
    return script + "plot " + ", \\\n  ".join(parts) + "\n"


def draw(out, name, plot, notes):
    """Makes NAME.svg and NAME.png; False, and a note, where it cannot."""
    if which("gnuplot") is None:
        if "no plots: gnuplot is missing (Debian's gnuplot-nox)" not in notes:
            notes.append("no plots: gnuplot is missing (Debian's gnuplot-nox)")
        return False
    body = bars(plot) if plot["kind"] == "bars" else curves(plot)
    if body is None:
        return False
    for end, terminal in (("svg", "svg size 960,540 font 'sans,12' background '#ffffff'"),
                          ("png", "png size 1200,675 font ',12'")):
        script = (f"set terminal {terminal}\nset output {quoted(str(out / f'{name}.{end}'))}\n"
                  f"set title {quoted(plot['title'])} noenhanced\n{body}")
        done = run([which("gnuplot")], input=script)
        if done.returncode != 0:
            notes.append(f"gnuplot failed at {name}: {done.stderr.strip()[-300:]}")
            return False
    return True

# SPDX-License-Identifier: Apache-2.0
"""What a run leaves: results.json, report.md, plots, raw lines."""

import gzip
import json
import re
import shutil

from harness import plots, targets


def markdown_table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def head(about):
    lines = ["# Measurements", "",
             f"Made by `{about['command']}` at {about['started']} from commit"
             f" {about['commit']}, in {about['seconds']} s.", ""]
    if about["size"] != "full":
        lines += [f"**Size {about['size']}: too few rounds for a figure to be quoted.**", ""]
    facts = [("processor", f"{about['processors']} x {about['processor']}, {about['memory']}"),
             ("system", f"{about['system']}, Linux {about['kernel']}"),
             ("load before", about["load_before"]),
             ("Deputy", about["deputy"]), ("nginx", about["nginx"]),
             ("haproxy", about["haproxy"]), ("hitch", about["hitch"]),
             ("OpenSSL", about["openssl"])]
    lines += markdown_table(["what", "which"], facts)
    lines += ["", "The method is in [bench/README.md](../../README.md). A figure is the median of its"
              " rounds, with the smallest and the largest in brackets; CPU is user and system time"
              " of all the server's threads and processes.", ""]
    return lines


def target_lines(results):
    wanted = [t for t in targets.load() if t["study"] in results]
    if not wanted:
        return []
    rows = [targets.row(t, results) for t in wanted]
    return ["## Targets", "", *markdown_table(["target", "bound", "measured", ""], rows), ""]


def study_lines(name, result):
    lines = [f"## {name}: {result['title']}", "",
             f"Varies: {result['varies']}. Took {result['seconds']} s; {result['state']}.", ""]
    lines.append(f"Failed where none should: {result['failed']}.")
    lines.append("")
    for plot in result["plots"]:
        if plot.get("is_drawn"):
            lines += [f"![{plot['title']}]({name}-{plot['name']}.svg)", ""]
    for table in result["tables"]:
        lines += [f"### {table['title']}", ""]
        lines += markdown_table(table["columns"], table["rows"]) + [""]
    if result["notes"]:
        lines += [f"- {note}" for note in result["notes"]] + [""]
    return lines


def without_paths(lines, raw):
    """The same without where on this machine it was."""
    return re.sub(rb"/[^\s\",]*/deputy-bench\.\w+", b"TMP", lines.replace(bytes(raw), b"raw"))


def pack_raw(out, names, how):
    raw = out / "raw"
    if how == "no":
        shutil.rmtree(raw, ignore_errors=True)
    elif how == "gzip":
        for name in names:
            paths = sorted(raw.glob(f"{name}-*.jsonl"))
            if not paths:
                continue
            # One after the other: the first line of each says which run it is.
            with gzip.GzipFile(raw / f"{name}.jsonl.gz", "wb", mtime=0) as packed:
                for path in paths:
                    packed.write(without_paths(path.read_bytes(), raw))
                    path.unlink()


def write(out, about, results, keep_raw):
    for old in [*out.glob("*.svg"), *out.glob("*.png")]:
        old.unlink()
    for name, result in results.items():
        for plot in result["plots"]:
            plot["is_drawn"] = plots.draw(out, f"{name}-{plot['name']}", plot, result["notes"])
        for plot in result["plots"]:
            if plot["kind"] != "bars":
                plot.pop("series")  # thousands of points, all of them in the raw lines
    pack_raw(out, results, keep_raw)
    (out / "results.json").write_text(
        json.dumps({"about": about, "studies": results}, indent=1) + "\n")
    lines = head(about) + target_lines(results)
    for name, result in results.items():
        lines += study_lines(name, result)
    (out / "report.md").write_text("\n".join(lines).rstrip() + "\n")

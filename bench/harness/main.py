# SPDX-License-Identifier: Apache-2.0
"""The command line of bench/run."""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time

from harness import machine, report, study, targets
from harness.base import ROOT, BenchError, Progress, UsageError
from harness.procs import run as run_program

PROGRAMS = ("deputy-proxy", "deputy-proxy-local-key", "deputy-keyserver", "deputy-dcissuer",
            "deputyctl", "deputy-bench", "deputy-netdelay")
OPTIONAL = ("deputy-proxy-local-key", "deputy-netdelay")
RESULTS = ROOT / "bench" / "results"

HELP = """\
bench/run STUDY...            runs these studies in full, with a report
bench/run all                 all of them but certstore, which needs 12 GB of disk
bench/run --quick [STUDY...]  in small; all of these take less than 5 minutes
bench/run --smoke [STUDY...]  as small as can be: does everything work? (no figure is good)
bench/run --list              the studies, and what each varies
bench/run targets [--group NAME] [--quick] [--from RESULTS]
                              measures the targets of bench/targets.json, or takes them from
                              a report's folder; exits 0 only when all are met
"""


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="bench/run", usage=HELP, add_help=True,
        description="Measures Deputy and its peers; bench/README.md has the method.")
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="list the studies and end")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick")
    size.add_argument("--smoke", dest="size", action="store_const", const="smoke")
    parser.add_argument("--group", help="of targets; default: all groups")
    parser.add_argument("--from", dest="source", metavar="RESULTS",
                        help="take targets from the results in this folder, measure nothing")
    parser.add_argument("--name", help="folder below bench/results (default: latest, or the size)")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the results, wherever")
    parser.add_argument("--bin", type=pathlib.Path,
                        help="folder with built programs (default: builds build/release)")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=N",
                        help="another number for a parameter of the study (of one study only)")
    parser.add_argument("--realtime", action="store_true",
                        help="on a shared machine: studies of latency run under SCHED_RR")
    parser.add_argument("--cache", type=pathlib.Path, metavar="DIR",
                        help="keep here what takes long to make (certstore: a million"
                             " certificates), and take it from here if it is there")
    parser.add_argument("--keep-raw", choices=("gzip", "yes", "no"), default="gzip",
                        help="what becomes of the lines of each handshake (default gzip)")
    args = parser.parse_args(argv)
    args.is_targets = args.studies[:1] == ["targets"]
    if args.is_targets:
        args.studies = args.studies[1:]
        if args.studies:
            raise UsageError("targets takes --group, and no study")
    elif args.group or args.source:
        raise UsageError("--group and --from belong to targets")
    if args.changes and (args.is_targets or len(args.studies) != 1):
        raise UsageError("--set wants one study")
    if args.name and not re.fullmatch(r"[A-Za-z0-9._-]+", args.name):
        raise UsageError("--name is the name of a folder, without a path")
    return args


def build(progress):
    """build/release, brought up to date; its bin folder."""
    folder = ROOT / "build" / "release"
    wanted = [p for p in PROGRAMS if p != "deputy-netdelay"]
    steps = [["cmake", "--preset", "release", "-DBUILD_TESTING=OFF"],
             ["cmake", "--build", folder, "--target", *wanted]]
    progress("building (build/release)")
    for step in steps:
        done = run_program(["env", "-C", ROOT, *step], timeout=1800)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(map(str, step))} failed:\n"
                             f"{(done.stdout + done.stderr)[-3000:]}")
    # Missing where libnetfilter-queue-dev is.
    run_program(["cmake", "--build", folder, "--target", "deputy-netdelay"], timeout=600)
    return folder / "bin"


def find_programs(folder):
    programs = {name: (folder / name).resolve() for name in PROGRAMS}
    for name, path in programs.items():
        if name not in OPTIONAL and not path.exists():
            raise BenchError(f"{path} is missing; leave --bin out to build it")
    return programs


def run_studies(args, wanted, progress):
    """Runs them one after the other; ({name: result}, about, out folder, exit code)."""
    size = args.size or "full"
    for name in wanted:
        about = study.describe(name)  # a wrong name ends before anything is built
        study.changed(about["sizes"][size], args.changes)
    programs = find_programs(args.bin) if args.bin else find_programs(build(progress))
    default = "latest" if size == "full" else size
    out = args.out or RESULTS / (args.name or default)
    raw = out / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    about = {"size": size, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
             "command": " ".join(["bench/run", *sys.argv[1:]]), **machine.about(programs)}
    results = {}
    code = 0
    for name in wanted:
        one = study.Study(name, size, programs, raw, progress, args.cache)
        one.change(args.changes)
        begin = time.monotonic()
        progress(f"{name}: {one.title}")
        state = "done"
        try:
            one.run(args.realtime)
        except BenchError as e:
            state = f"failed: {e}"
            code = 1
            progress(f"{name}: {state}")
        except KeyboardInterrupt:
            state = "interrupted"
            code = 130
        results[name] = {"title": one.title, "varies": one.varies, "state": state, "size": size,
                         "seconds": round(time.monotonic() - begin, 1), "parameters": one.p,
                         **one.result.as_dict()}
        if code == 130:
            progress("interrupted; keeping what there is")
            break
    about["seconds"] = round(time.monotonic() - progress.begin, 1)
    report.write(out, about, results, args.keep_raw)
    progress(f"the report is {os.path.relpath(out / 'report.md')}")
    return results, about, out, code


def on_terminate(signo, frame):
    raise KeyboardInterrupt


def do(args, progress):
    if args.list:
        for name in study.names():
            about = study.describe(name)
            print(f"{name:10s} {about['title']}\n{'':10s} varies: {about['varies']}")
        return 0
    if args.is_targets:
        wanted = targets.load(args.group)
        code = 0
        if args.source:
            path = pathlib.Path(args.source) / "results.json"
            if not path.exists():
                raise UsageError(f"{path} does not exist")
            results = json.loads(path.read_text())["studies"]
        else:
            needed = sorted({t["study"] for t in wanted})
            results, _, _, code = run_studies(args, needed, progress)
        are_met = targets.show(wanted, results)
        return code or (0 if are_met else 1)
    wanted = args.studies
    if wanted == ["all"] or (not wanted and args.size):
        # What takes hours has to be asked for.
        wanted = [name for name in study.names()
                  if not study.describe(name).get("by_name_only", False)]
    if not wanted:
        raise UsageError("which study? see --list and --help")
    return run_studies(args, list(dict.fromkeys(wanted)), progress)[3]


def main(argv):
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        return do(parse(argv), Progress())
    except UsageError as e:
        print(f"bench/run: error: {e}", file=sys.stderr)
        return 2
    except BenchError as e:
        print(f"bench/run: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench/run: interrupted", file=sys.stderr)
        return 130

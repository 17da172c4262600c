"""Runs SQLite's test scripts without us and on published databases, and compares them case by case.

    run.py FOLDER_OF_TESTS EXTENSION [GLOB...]

Each script runs in processes of its own, two scripts at a time (JOBS), each with a time limit (LIMIT, in seconds). Where the two runs differ, it runs
a second time without us: what differs then too varies by itself. What causes.txt explains is counted by its cause;
everything else is a fault. All differences are written to target/sqlite-report.txt. The exit code is 1 when there are faults.
"""

import collections
import concurrent.futures
import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
REPORT = HERE.parents[1] / "target" / "sqlite-report.txt"
LIMIT = int(os.environ.get("LIMIT", "60"))

# Scripts that run other scripts, or that have no case without SQLite's own test program and take long to find that out.
DRIVERS = "all full quick veryquick extraquick permutations soak mallocAll fts3 rtree session rbu async* speed* win32* mallocK".split()

Difference = collections.namedtuple("Difference", "case plain published")


class Script:
    """What came of one script."""

    def __init__(self, name):
        self.name, self.equal, self.skipped, self.varying = name, 0, 0, 0
        self.differing, self.note, self.replicas = [], "", 0

    @property
    def cases(self):
        return self.equal + len(self.differing)


def run(mode, script, extension):
    """The results of one run, by case; the how manieth of its name is part of a case. None when its time was up."""
    with tempfile.TemporaryDirectory(prefix="logos-suite-") as folder:
        work, home, results = (os.path.join(folder, name) for name in ("work", "home", "results"))
        os.mkdir(work), os.mkdir(home)
        command = ["tclsh", str(HERE / "tester.tcl"), mode, str(script), results, extension, home]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=work, start_new_session=True, **quiet)
        try:
            code = process.wait(LIMIT if mode == "plain" else 5 * LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        try:
            os.killpg(process.pid, 9)  # children that the script left behind, or all of it
        except ProcessLookupError:
            pass
        process.wait()
        found, seen = {}, collections.Counter()
        if os.path.exists(results):
            with open(results, encoding="utf-8", errors="replace", newline="\n") as lines:
                for line in lines:
                    name, _, result = line.rstrip("\n").partition("\t")
                    seen[name] += 1
                    found[f"{name} #{seen[name]}"] = result
        if code != 0:
            found["the process #1"] = "took too long" if code is None else f"exit code {code}"
        return found


def differences(plain, published):
    return [
        Difference(case, plain.get(case, "(did not run)"), published.get(case, "(did not run)"))
        for case in {**plain, **published}
        if plain.get(case) != published.get(case) and not is_ours(case, published)
    ]


def is_ours(case, published):
    """What tells of the replica is in one run only, and right when it says so."""
    return case.startswith(("replica ", "publish ")) and published.get(case) == "equal"


def compare(path, extension):
    script = Script(path.stem)
    plain = run("plain", path, extension)
    if "took too long" in plain.get("the process #1", ""):
        script.note = "takes too long without us"
        return script
    if all(result == "skipped" or case.startswith(("line ", "finished ")) for case, result in plain.items()):
        script.note = "nothing in it runs without SQLite's own test program"
        return script
    published = run("published", path, extension)
    script.differing = differences(plain, published)
    if any(case in plain for case, *_ in script.differing):
        again = run("plain", path, extension)
        varying = {case for case, *_ in differences(plain, again)}
        script.varying = sum(1 for one in script.differing if one.case in varying)
        script.differing = [one for one in script.differing if one.case not in varying]
    if published.get("the process #1") == "took too long":
        # One fault, not one for every case after it.
        script.differing = [one for one in script.differing if one.published != "(did not run)"]
    different = {one.case for one in script.differing}
    script.replicas = sum(1 for case in published if case.startswith("replica ") and case not in different)
    both = [case for case in plain if case in published and plain[case] == published[case]]
    script.skipped = sum(1 for case in both if plain[case] == "skipped")
    script.equal = len(both) - script.skipped
    return script


def causes():
    """Lines `script | case | pattern of the published result | cause`; the first that fits counts."""
    read = []
    for line in (HERE / "causes.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            script, case, pattern, cause = (field.strip() for field in line.split(" | "))
            read.append((script.split(), case, re.compile(pattern), cause))
    return read


def explain(known, script, difference):
    for scripts, case, pattern, cause in known:
        fits = any(fnmatch.fnmatchcase(script, one) for one in scripts)
        if fits and fnmatch.fnmatchcase(difference.case, case + " #*") and pattern.search(difference.published):
            return cause
    return None


def main():
    folder, extension, *globs = sys.argv[1:]
    paths = sorted(pathlib.Path(folder).glob("*.test"))
    wanted = [
        path
        for path in paths
        if not any(fnmatch.fnmatchcase(path.stem, one) for one in DRIVERS)
        and (not globs or any(fnmatch.fnmatchcase(path.stem, one) for one in globs))
    ]
    known, done, lock = causes(), [], threading.Lock()
    extension = str(pathlib.Path(extension).resolve())
    REPORT.parent.mkdir(exist_ok=True)
    explained, faults = collections.Counter(), 0
    with open(REPORT, "w") as report, concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        for future in concurrent.futures.as_completed([pool.submit(compare, path, extension) for path in wanted]):
            script = future.result()
            done.append(script)
            for one in script.differing:
                cause = explain(known, script.name, one)
                explained[cause or "fault"] += 1
                faults += cause is None
                shown = f"{script.name} | {one.case} | {cause or 'FAULT'}\n    without us: {one.plain}\n    published:  {one.published}\n"
                report.write(shown)
                report.flush()
                if cause is None and faults <= 40:
                    print("".join(line[:300] + "\n" for line in shown.splitlines()), end="", flush=True)
            if len(done) % 50 == 0:
                print(f"{len(done)} of {len(wanted)} scripts, {faults} faults", flush=True)
    ran = [script for script in done if not script.note]
    total = lambda what: sum(getattr(script, what) for script in ran)  # noqa: E731
    for note, count in collections.Counter(script.note for script in done if script.note).items():
        print(f"{count:7} scripts left out: {note}")
    print(f"{len(ran):7} scripts, each main database published")
    print(f"{total('cases'):7} cases")
    print(f"{total('equal'):7} equal")
    print(f"{total('replicas'):7} replicas equal to their primaries, made when a connection ended")
    print(f"{total('skipped'):7} skipped in both: only SQLite's own test program can run them")
    print(f"{total('varying'):7} vary by themselves from run to run without us")
    print(f"{sum(explained.values()) - faults:7} differ by a documented cause:")
    for cause, count in explained.most_common():
        if cause != "fault":
            print(f"{count:15} {cause}")
    print(f"{faults:7} faults; all differences: {REPORT}")
    sys.exit(1 if faults or not ran else 0)


main()

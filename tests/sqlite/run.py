"""Runs SQLite's test scripts without us and on published databases, and compares them case by case.

    run.py FOLDER_OF_TESTS EXTENSION [GLOB...]

Each script runs in processes of its own, two scripts at a time (JOBS), each with a time limit (LIMIT, in seconds; five times as much when
published). Where the two runs differ, it runs a second time without us: what differs then too varies by itself. What causes.txt
explains is counted by its cause; everything else is a fault, a script that is too slow with us only among them. All differences are
written to target/sqlite-report.txt. The exit code is 1 when there are faults.

What came of each run is kept in target/sqlite-runs/, and what does not depend on us is taken from there the next time.
KEPT=1 takes the published runs from there too, if the extension and the scripts are the same: an interrupted run goes on, and
a new line of causes.txt costs nothing.
"""

import collections
import concurrent.futures
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPORT = HERE.parents[1] / "target" / "sqlite-report.txt"
RUNS = HERE.parents[1] / "target" / "sqlite-runs"
LIMIT = int(os.environ.get("LIMIT", "60"))

# Scripts that run other scripts, or that have no case without SQLite's own test program and take long to find that out.
DRIVERS = "all full quick veryquick extraquick permutations soak mallocAll fts3 rtree session rbu async* speed* win32* mallocK".split()

Difference = collections.namedtuple("Difference", "case plain published")
NOT_RUN, TOO_LONG, SKIPPED = ("", "(did not run)"), ("", "took too long"), ("", "skipped")


class Script:
    """What came of one script."""

    def __init__(self, name):
        self.name, self.equal, self.skipped, self.varying = name, 0, 0, 0
        self.differing, self.note, self.replicas = [], "", 0

    @property
    def cases(self):
        return self.equal + len(self.differing)


def run(mode, script, extension):
    """What came of each case in one run: whether it is what the script expects ("ok"), and the result. The how manieth of its name
    is part of a case."""
    with tempfile.TemporaryDirectory(prefix="logos-suite-") as folder:
        work, home, results = (os.path.join(folder, name) for name in ("work", "home", "results"))
        os.mkdir(work), os.mkdir(home)
        limit = LIMIT if mode == "plain" else 5 * LIMIT
        # `timeout` ends the script and its children also when we have been ended meanwhile.
        command = ["timeout", "--signal=KILL", str(limit)]
        command += ["tclsh", str(HERE / "tester.tcl"), mode, str(script), results, extension, home]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=work, start_new_session=True, **quiet)
        code = process.wait()
        late = time.monotonic() - begun >= limit
        try:
            os.killpg(process.pid, signal.SIGKILL)  # children that the script left behind
        except ProcessLookupError:
            pass
        found, seen = {}, collections.Counter()
        if os.path.exists(results):
            with open(results, encoding="utf-8", errors="replace", newline="\n") as lines:
                for line in lines:
                    # A script that was killed has left half a line.
                    name, judged, result = (line.rstrip("\n") + "\t\t").split("\t")[:3]
                    seen[name] += 1
                    found[f"{name} #{seen[name]}"] = (judged, result)
        if code != 0:
            found["the process #1"] = TOO_LONG if late else ("", f"exit code {code}")
        return found


def kept(mode, path, extension, use):
    """The same, from a former run if `use` says so and nothing of it has changed since."""
    of = [path, HERE / "tester.tcl", HERE / "replica.tcl"] + ([extension] if mode == "published" else [])
    key = hashlib.sha256(b"".join(hashlib.sha256(pathlib.Path(one).read_bytes()).digest() for one in of)).hexdigest() + f" {LIMIT}"
    file = RUNS / mode / f"{path.stem}.json"
    if use and file.exists():
        former = json.loads(file.read_text())
        if former["of"] == key:
            return {case: tuple(result) for case, result in former["results"].items()}
    results = run(mode.removesuffix("-again"), path, extension)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"of": key, "results": results}))
    return results


def differences(plain, published):
    return [
        Difference(case, plain.get(case, NOT_RUN), published.get(case, NOT_RUN))
        for case in {**plain, **published}
        if not are_equal(plain.get(case), published.get(case)) and not is_ours(case, published)
    ]


def are_equal(one, other):
    """Both as the script expects, or else the same."""
    return one == other or None not in (one, other) and one[0] == other[0] == "ok"


def is_ours(case, published):
    """What tells of the replica is in one run only, and right when it says so."""
    return case.startswith(("replica ", "publish ")) and published.get(case) == ("", "equal")


def compare(path, extension):
    script = Script(path.stem)
    plain = kept("plain", path, extension, True)
    if plain.get("the process #1") == TOO_LONG:
        script.note = "takes too long without us"
        return script
    if all(result == SKIPPED or case.startswith(("line ", "finished ", "the process ")) for case, result in plain.items()):
        script.note = "nothing in it runs without SQLite's own test program"
        return script
    published = kept("published", path, extension, bool(os.environ.get("KEPT")))
    script.differing = differences(plain, published)
    if any(case in plain for case, *_ in script.differing):
        again = kept("plain-again", path, extension, True)
        varying = {case for case, *_ in differences(plain, again)}
        script.varying = sum(1 for one in script.differing if one.case in varying)
        script.differing = [one for one in script.differing if one.case not in varying]
    if published.get("the process #1") == TOO_LONG:
        # One fault, not one for every case after it.
        script.differing = [one for one in script.differing if one.published != NOT_RUN]
    different = {one.case for one in script.differing}
    script.replicas = sum(1 for case in published if case.startswith("replica ") and case not in different)
    both = [case for case in plain if case in published and are_equal(plain[case], published[case])]
    script.skipped = sum(1 for case in both if plain[case] == SKIPPED)
    script.equal = len(both) - script.skipped
    return script


def causes():
    """Lines `scripts | cases | what is shown | cause`; the first that fits counts. causes.txt says what the fields are."""
    read = []
    for line in (HERE / "causes.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            scripts, cases, shown, cause = (field.strip() for field in line.split(" | "))
            read.append((scripts.split(), cases.split(", "), shown, cause))
    return read


def explain(known, script, difference):
    for scripts, cases, shown, cause in known:
        of_script = any(fnmatch.fnmatchcase(script, one) for one in scripts)
        if of_script and any(fnmatch.fnmatchcase(difference.case, case + " #*") for case in cases) and shows(shown, difference):
            return cause
    return None


def shows(shown, difference):
    (_, plain), (judged, published) = difference.plain, difference.published
    if shown == "as expected":
        return judged == "ok"
    if shown == "lists":
        rest = iter(words(published))
        return "_logos_" in published and not is_error(published) and all(word in rest for word in words(plain))
    if shown in ("numbers", "larger"):
        (here, there), (digits, others) = zip(numbers(plain), numbers(published))
        return here == there and (shown == "numbers" or len(digits) <= len(others) and all(map(int.__le__, digits, others)))
    return re.search(shown, published) is not None


def words(result):
    """Words of a result in their order; a number may be another one."""
    found = [re.sub(r"^\d+$", "N", word.strip("{}")) for word in result.split()]
    return [word for word in found if word]


def is_error(result):
    return result.startswith(("error:", "1 {"))


def numbers(result):
    """A result with one mark for each integer or list of them, however long; and the integers."""
    number = r"(?<![\w.])-?\d+(?![\w.])"
    return re.sub(rf"{number}(?: {number})*", "N", result), [int(one) for one in re.findall(number, result)]


def main():
    folder, extension, *globs = sys.argv[1:]
    paths = sorted(pathlib.Path(folder).resolve().glob("*.test"))
    wanted = [
        path
        for path in paths
        if not any(fnmatch.fnmatchcase(path.stem, one) for one in DRIVERS)
        and (not globs or any(fnmatch.fnmatchcase(path.stem, one) for one in globs))
    ]
    known, done = causes(), []
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
                shown = f"{script.name} | {one.case} | {cause or 'FAULT'}\n"
                shown += f"    without us: {' '.join(one.plain)}\n    published:  {' '.join(one.published)}\n"
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

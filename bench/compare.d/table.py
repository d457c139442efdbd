"""The results as Markdown, between the markers of docs/performance.md."""

import statistics

from rows import ROWS

BEGIN = "<!-- begin: written by bench/compare -->"
END = "<!-- end: written by bench/compare -->"
# Replies that differ by more than this in size are not the same work.
SAME_PEERS = 0.10
SOME_FAILED = 0.01
# Below this the load, not the server, was the limit.
BUSY = 0.9


def figure(result):
    """The name of what is compared."""
    return "cpu_seconds_per_million" if result["measure"] == "cpu" else "bytes"


def spread(values):
    """Median, least and most; None if there are no values."""
    return (statistics.median(values), min(values), max(values)) if values else None


def cost(result, label):
    """What an entry costs, over its rounds."""
    return spread([sample[figure(result)] for sample in result["entries"][label]["samples"] if sample])


def ratio(result, label):
    """What the first entry costs in parts of another, over the rounds that both have gone through."""
    name, entries = figure(result), result["entries"]
    pairs = zip(entries[first(result)]["samples"], entries[label]["samples"])
    return spread([one[name] / two[name] for one, two in pairs if one and two and two[name]])


def first(result):
    return next(iter(result["entries"]))


def median(entry, name):
    return statistics.median(sample[name] for sample in entry["samples"] if sample)


def verdicts(row, result):
    """Each goal of a row: what it is measured against, the limit, and what was measured, if anything."""
    for goal in row.goals:
        if goal.of:
            measured = ratio(result, goal.of) if goal.of in result["entries"] else None
        else:
            measured = cost(result, first(result))
        yield goal, measured and measured[0]


def verdict(goal, measured):
    form = ".2f" if goal.of else ".0f"
    said = "not measured" if measured is None else "met" if measured <= goal.at_most else "**not met**"
    return f"≤ {goal.at_most:{form}} {said}"


def flags(result, label):
    """What makes an entry hard to compare."""
    entry = result["entries"][label]
    if ratio(result, label):
        ours, peers = (median(result["entries"][it], "peers_per_announce") for it in (first(result), label))
        if ours and abs(peers / ours - 1) > SAME_PEERS:
            yield "other number of peers"
    if median(entry, "failed_share") > SOME_FAILED:
        yield f"{median(entry, 'failed_share'):.0%} of the requests failed"
    if not result["shared_cores"] and median(entry, "server_busy") < BUSY:
        yield f"only {median(entry, 'server_busy'):.0%} busy"


def cells(result, label):
    """What was measured of an entry: cost, replies a second, peers a reply, parts of it, flags."""
    centre, least, most = cost(result, label)
    of = ratio(result, label) if label != first(result) else None
    if result["measure"] != "cpu":
        return f"{centre:,.0f} B", "", "", of and f"{of[0]:.2f}" or "", ""
    entry = result["entries"][label]
    return (
        f"{centre:.2f} ({least:.2f}–{most:.2f})",
        f"{median(entry, 'replies_per_second') / 1000:.1f} k",
        f"{peers:.1f}" if (peers := median(entry, "peers_per_announce")) else "",
        f"**{of[0]:.2f}** ({of[1]:.2f}–{of[2]:.2f})" if of else "",
        "".join(f" ⚠ {flag}" for flag in flags(result, label)),
    )


def lines(row, result):
    """The rows of a Markdown table for one comparison."""
    goals = {}
    for goal, measured in verdicts(row, result):
        goals.setdefault(goal.of or first(result), []).append(verdict(goal, measured))
    yield f"| **{result['title']}** | | | | | |"
    for label in result["entries"]:
        shown = "; ".join(goals.get(label, []))
        if cost(result, label) is None:
            yield f"| {label} | not measured | | | | {shown} |"
            continue
        *measured, flagged = cells(result, label)
        yield f"| {label}{flagged} | {' | '.join(measured)} | {shown} |"


def markdown(results):
    """All that is between the markers."""
    rows = [row for row in ROWS if row.key in results["rows"]]
    out = [
        BEGIN,
        "",
        "![cost of this tracker relative to others](performance/compare.svg)",
        "",
        f"Medians, with the minimum and maximum of the rounds in parentheses. {results['machine']}, except for rows whose "
        "note below names another machine.",
        "",
        "| | CPU s per million replies, or memory | replies/s | peers per reply | this tracker relative to it | goal |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        out += lines(row, results["rows"][row.key])
    out += ["", "The load of each row (options of `scion-tracker bench`, unless another program is named):", ""]
    for row in rows:
        result = results["rows"][row.key]
        own = [
            f"{entry.label}: " + " ".join(f"--{name} {value}" for name, value in entry.load.items())
            for entry in row.entries
            if entry.load
        ]
        text = f"- `{row.key}`, {result['title']}, {result['taken']}: `{result['load']}`"
        text += "".join(f"; {item}" for item in own) + "."
        if result["shared_cores"]:
            text += " The load shares the server's cores: the machine has no others."
        if result["machine"] != results["machine"]:
            text += f" On {result['machine']}."
        if row.note:
            text += f" {row.note}"
        programs = dict.fromkeys(entry["program"] for entry in result["entries"].values())
        out.append(f"{text} Programs: {', '.join(programs)}.")
    missing = [
        f"- {label} (`{key}`): {entry['missing']}"
        for key, result in results["rows"].items()
        for label, entry in result["entries"].items()
        if "missing" in entry
    ]
    out += ["", "What could not be measured:", "", *missing] if missing else []
    return "\n".join([*out, "", END])


def insert(path, results):
    """Puts the results between the markers of a file."""
    text = path.read_text()
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{path} has no line {BEGIN} with {END} after it")
    path.write_text(before + markdown(results) + after)

"""The result of an evaluation as tables in the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

BEAT_RATES = (
    "QRS Se",
    "QRS +P",
    "QRS F1",
    "VEB Se",
    "VEB +P",
    "VEB FPR",
    "VEB F1",
    "SVEB Se",
    "SVEB +P",
    "SVEB FPR",
    "SVEB F1",
)
BY_RECORD = ("QRS Se", "QRS +P", "VEB Se", "VEB +P", "SVEB Se", "SVEB +P")
MAX_LISTED = 20


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print all tables that `result_of` has figures for."""
    console.print(
        f"[bold]{result['source']}[/]: {_count(result['n_records'])}, {result['hours']:.2f} h; research software"
    )
    console.print(f"beats: {result['beats']}; weights: {', '.join(result['weights'])}; seed: {_plain(result['seed'])}")
    console.print(f"split: {result['split']}")
    if result["start_s"] != 300:
        console.print(f"[yellow]non-standard: the learning period is {result['start_s']:g} s and not 300 s[/]")
    if result["unread"]:
        console.print(f"[yellow]could not be read, and is not scored: {_count(len(result['unread']))}[/]")
    if result["left_out_as_paced"]:
        console.print(f"left out of the EC57 tables as paced: {', '.join(result['left_out_as_paced'])}")
    for table in _tables(result):
        console.print(table)


def percent(of: Mapping[str, Any], digits: int = 2) -> str:
    """A rate as a percentage with its counts, `-` where nothing was counted."""
    if of["value"] is None:
        return "-"
    return f"{100 * of['value']:.{digits}f} ({of['numerator']:g}/{of['denominator']:g})"


def interval(of: Mapping[str, Any]) -> str:
    """The interval of a rate in percent."""
    return "-" if of["low"] is None else f"{100 * of['low']:.2f}..{100 * of['high']:.2f}"


def _tables(result: Mapping[str, Any]) -> Iterable[Table]:
    for label_map, table in result["beat_tables"].items():
        rates = {name: table["summary"][name] for name in BEAT_RATES}
        yield _summary(f"Beats, EC57, label map {label_map}", rates)
    if result["beat_tables"]:
        yield _records(result)
        yield _measures(result)
    if result["other_tables"]:
        yield _summary("Runs and episodes, EC57", result["other_tables"]["summary"])
    if result["segments"]:
        rates = {f"{name}: {r}": s for name, of in result["segments"].items() for r, s in of["summary"].items()}
        yield _summary("Segments of the whole record", rates)
    if result["alarms"]:
        yield _per_day(result["alarms"])
        yield _decisions(result["alarms"]["decision_s"])
        if result["alarms"]["episodes"]:
            yield _episodes(result["alarms"]["episodes"])
        if result["alarms"]["labelled_hours"]:
            yield _reds(result["alarms"])
    if result["challenge2015"]:
        yield _challenge(result["challenge2015"])
    if result["af_by_record"]:
        table = _table("Records in which AF was marked, by label of Challenge 2017", "label", "%", "95 %")
        for label, rate in result["af_by_record"].items():
            table.add_row(label, percent(rate), interval(rate))
        yield table


def _summary(title: str, rates: Mapping[str, Any]) -> Table:
    table = _table(title, "rate", "gross %", "Wilson 95 %", "by patient 95 %", "average %", "records")
    for name, summary in rates.items():
        if summary["gross"]["value"] is None:
            continue
        average = "-" if summary["average"] is None else f"{100 * summary['average']:.2f}"
        gross = summary["gross"]
        table.add_row(
            name, percent(gross), interval(gross), interval(summary["by_patient"]), average, str(summary["n_records"])
        )
    return table


def _records(result: Mapping[str, Any]) -> Table:
    table = _table("By record, label map bxb", "record", *(f"{name} %" for name in BY_RECORD), "FN", "FP", "RR ms")
    errors = result["rr_error"]["records"]
    for name, record in result["beat_tables"]["bxb"]["records"].items():
        rates = record["rates"]
        cells = ["-" if rates[r][1] == 0 else f"{100 * rates[r][0] / rates[r][1]:.2f}" for r in BY_RECORD]
        missed, invented = (rates[r][1] - rates[r][0] for r in ("QRS Se", "QRS +P"))
        ms = errors[name]["matches_ms"]
        table.add_row(name, *cells, str(missed), str(invented), "-" if ms is None else f"{ms:.1f}")
    return table


def _measures(result: Mapping[str, Any]) -> Table:
    table = _table("Intervals, rate and delay", "measure", "value")
    errors = result["rr_error"]
    for kind, text in (("bxb", "RMS RR error, every pair as bxb"), ("matches", "RMS RR error, successive matches")):
        if errors[kind]["gross_ms"] is not None:
            average = errors[kind]["average_ms"]
            table.add_row(text, f"{errors[kind]['gross_ms']:.2f} ms gross, {average:.2f} ms average")
    if result["heart_rate"]:
        hr = result["heart_rate"]
        table.add_row(
            "heart-rate error, one rule for both",
            f"{hr['gross_bpm']:.2f} bpm gross, {hr['average_bpm']:.2f} bpm ({hr['average_percent']:.2f} %) average",
        )
        table.add_row("heart rate within 10 % or 5 bpm", percent(hr["within_10_percent_or_5_bpm"]))
    if result["beat_delay"]:
        delay = result["beat_delay"]
        figures = ", ".join(
            f"{key.removesuffix('_ms')} {delay[key]:.0f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")
        )
        table.add_row(f"R peak to decision, {delay['n']} beats", f"{figures} ms")
    return table


def _per_day(alarms: Mapping[str, Any]) -> Table:
    table = _table(
        f"Alarms per bed and day, over {alarms['hours']:.2f} h", "priority", "before chains and time-outs", "announced"
    )
    for kind, counts in alarms["per_bed_and_day"].items():
        table.add_row(
            kind, f"{counts['all']:.1f} ({counts['n_all']})", f"{counts['announced']:.1f} ({counts['n_announced']})"
        )
    return table


def _decisions(decisions: Mapping[str, Any]) -> Table:
    table = _table(
        "Own onset to decision of every alert, s", "alarm", "alerts", "p50", "p95", "p99", "max", "in 10 s, %"
    )
    for code, of in decisions.items():
        figures = (f"{of[key]:.1f}" for key in ("p50", "p95", "p99", "max"))
        table.add_row(
            code, str(of["n"]), *figures, f"{100 * of['within_10_s'] / of['n']:.1f} ({of['within_10_s']}/{of['n']})"
        )
    return table


def _episodes(episodes: Mapping[str, Any]) -> Table:
    table = _table(
        "Reference episodes and the alarms that met them", "alarm", "announced %", "with suppressed %", "of >= 10 s, %",
        "in 10 s, %", "or under a red, %", "delay s: p50", "p95", "p99", "max",
    )  # fmt: skip
    for code, of in episodes.items():
        if not of["n_all"]:
            continue
        delays = [
            f"{of['delay_s'][key]:.1f}" if of["delay_s"][key] is not None else "-"
            for key in ("p50", "p95", "p99", "max")
        ]
        least = f" (>= {of['at_least_s']:g} s)" if of["at_least_s"] else ""
        shares = (
            percent(of[k], 1)
            for k in (
                "announced",
                "detected",
                "announced_of_10_s",
                "announced_of_10_s_within_10_s",
                "told_of_10_s_within_10_s",
            )
        )
        table.add_row(f"{code}{least}", *shares, *delays)
    return table


def _reds(alarms: Mapping[str, Any]) -> Table:
    table = _table(
        f"Announced red alarms over {alarms['labelled_hours']:.2f} labelled h",
        "alarm",
        "true",
        "related",
        "false",
        "unknown",
    )
    for code, of in alarms["reds"].items():
        table.add_row(code, *(str(of[verdict]) for verdict in ("true", "related", "false", "unknown")))
    quiet = alarms["quiet"]
    table.caption = (
        f"without VF, VT or asystole: {_count(len(quiet['records']))}, {quiet['hours']:.2f} h, "
        f"{quiet['false_reds']} false reds"
    )
    listed = alarms["false_reds"][:MAX_LISTED]
    if listed:
        more = len(alarms["false_reds"]) - len(listed)
        table.caption += "\nfalse: " + ", ".join(f"{f['code']} {f['record']} at {f['at_s']:.0f} s" for f in listed)
        table.caption += f" and {more} more" if more else ""
    return table


def _challenge(challenge: Mapping[str, Any]) -> Table:
    table = _table(
        "Challenge 2015, in real time", "alarm", "score", "TPR %", "95 %", "TNR %", "95 %", "TP", "FN", "FP", "TN"
    )
    for kind, of in challenge["by_type"].items():
        score = "-" if of["score"] is None else f"{of['score']:.2f}"
        counts = (str(of[key]) for key in ("tp", "fn", "fp", "tn"))
        table.add_row(
            kind, score, percent(of["TPR"]), interval(of["TPR"]), percent(of["TNR"]), interval(of["TNR"]), *counts
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _count(n: int) -> str:
    return "1 record" if n == 1 else f"{n} records"


def _plain(value: object) -> str:
    return "not told" if value is None else str(value)

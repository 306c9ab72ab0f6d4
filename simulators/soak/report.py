"""The result of a soak as one page that needs nothing else: what held, figures, plots over time and distributions."""

import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1060px;padding:0 1em;color:#1c1c1c;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;margin:.6em 0}
th,td{padding:.15em .7em;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}.note{background:#fff4d6;padding:.5em .8em;border-left:4px solid #d9a400}
.ok{color:#1a6b3c}.bad{color:#b3261e;font-weight:600}svg{display:block;max-width:100%;height:auto}
figure{margin:1em 0}figcaption{color:#555;font-size:.9em}
"""
_INK, _SHADE = "#1c1c1c", "#f3d9a8"
KINDS = ("beats", "windows", "alerts")


def page(result: Mapping[str, Any]) -> str:
    """The page as HTML, of what `run.soak` writes as JSON."""
    parts = [
        f"<h1>Soak: {_text(result['plan']['name'])}</h1>",
        "<p class='note'>Research software: not a medical device. Simulated patients, or recordings played again.</p>",
        _head(result),
        "<h2>What had to hold</h2>",
        _table(
            ("limit", "at most", "measured", ""),
            [
                (one["name"], _number(one["limit"]), _number(one["value"]), _verdict(one["held"]))
                for one in result["limits"]
            ],
        ),
        "<h2>Latency, ms</h2>",
        _latency(result),
        _plots(result),
        "<h2>Samples</h2>",
        _samples(result["account"]),
        "<h2>Faults</h2>",
        _faults(result["faults"]),
        "<h2>Alerts against the truth of simulated beds</h2>",
        _alerts(result["truth"]),
        "<h2>Processes</h2>",
        _table(
            ("process", "cores", "MB at the start", "MB at the end"),
            [
                (name, _number(p["cores"]), _number(p["first_mb"]), _number(p["last_mb"]))
                for name, p in result["processes"].items()
            ],
        ),
        "".join(f"<p>{_text(note)}</p>" for note in result["notes"]),
    ]
    title = f"<title>Soak: {_text(result['plan']['name'])}</title>"
    head = f'<head><meta charset="utf-8">{title}<style>{_STYLE}</style></head>'
    return f'<!doctype html><html lang="en">{head}<body>{"".join(parts)}</body></html>\n'


def _head(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    facts = {
        "verdict": _verdict(result["held"]),
        "measured": f"{result['measured_s']:.0f} s" + (", interrupted" if result["interrupted"] else ""),
        "beds": result["plan"]["beds"],
        "beds per core": _number(result["beds_per_core"]),
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['system']}",
        "load before": _number(machine["load"]),
        "began": result["began"],
        "command": f"<code>{_text(result['command'])}</code>",
    }
    return (
        "<table>"
        + "".join(f"<tr><td>{k}</td><td style='text-align:left'>{v}</td></tr>" for k, v in facts.items())
        + "</table>"
    )


def _latency(result: Mapping[str, Any]) -> str:
    names = ("n", "mean", "p50", "p95", "p99", "p99.9", "max", "p99.9/mean", "max/mean")
    rows = []
    for when, told in (("undisturbed", result["latency_ms"]["calm"]), ("all", result["latency_ms"]["all"])):
        rows += [
            (f"{kind}, {when}", *(_number(told[kind][name]) for name in names)) for kind in KINDS if told[kind]["n"]
        ]
    rows += [
        (stage, *(_number(told[name]) for name in names)) for stage, told in result["latency_ms"]["stages"].items()
    ]
    return _table(("sent to published; stages", *names), rows)


def _samples(account: Mapping[str, Any]) -> str:
    rows = [("sent", account["sent"]), ("analysed", account["analysed"])]
    rows += [(f"missing: {cause}", n) for cause, n in account["missing"].items()]
    rows += [("unaccounted", account["unaccounted"]), ("proved by their counters", account["proved"])]
    rows += [
        ("of these misplaced", account["misplaced"]),
        ("delivered without proof though counted", account["unproved"]),
    ]
    rows += [(f"packets {fate}", n) for fate, n in account["packets"].items()]
    rows += [(f"seen from outside: {what}", n) for what, n in account["waves"].items()]
    rows += [(f"judgements: {what}", n) for what, n in account["order"].items()]
    rows += [(f"frames the network {what}", n) for what, n in account["link"].items()]
    rows += [("publications that the soak missed", account["holes"])]
    return _table(("", "n"), [(name, f"{n:,}") for name, n in rows])


def _faults(faults: Sequence[Mapping[str, Any]]) -> str:
    if not faults:
        return "<p>None.</p>"
    return _table(
        ("fault", "at s", "for s", "judgements again after s", "caught up after s"),
        [
            (
                _text(f["kind"]),
                _number(f["at_s"]),
                _number(f["for_s"]),
                _number(f["resumed_s"]),
                _number(f["caught_up_s"]),
            )
            for f in faults
        ],
    )


def _alerts(truth: Mapping[str, Any]) -> str:
    rows = [(what, truth[what]) for what in ("told", "missed", "excused", "doubled", "false", "reds")]
    lines = [f"<li>{_text(line)}</li>" for line in truth["lines"][:50]]
    delays = _table(
        ("rhythm", "episodes told", "median delay s", "greatest"),
        [(name, d["n"], _number(d["median_s"]), _number(d["max_s"])) for name, d in truth["delays"].items()],
    )
    return _table(("", "n"), rows) + delays + f"<ul>{''.join(lines)}</ul>"


def _plots(result: Mapping[str, Any]) -> str:
    """Plots by matplotlib, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    slots = result["slots"]
    at = slots["at_s"]
    spans = [(f["at_s"], f["at_s"] + f["for_s"] + (f["resumed_s"] or 0), f["kind"]) for f in result["faults"]]

    def lines(axes: Any, of: Mapping[str, Sequence[float]], label: str, log: bool = False) -> None:
        for name, values in of.items():
            axes.plot(at, values, label=name, linewidth=1)
        axes.set_ylabel(label)
        axes.set_xlabel("s since the measurement began")
        if log:
            axes.set_yscale("log")
        for begin, end, _ in spans:
            axes.axvspan(begin, max(end, begin + 0.5), color=_SHADE, zorder=0, linewidth=0)
        axes.grid(alpha=0.3)
        if of:
            axes.legend(fontsize=8, ncols=4)

    def totals(axes: Any) -> None:
        of = {
            f"{kind} {q}": slots["latency_ms"][kind][q] for kind in ("beats", "windows") for q in ("p50", "p99", "max")
        }
        lines(axes, of, "sent to published, ms", log=True)

    def stages(axes: Any) -> None:
        lines(axes, {stage: told["p99"] for stage, told in slots["stages_ms"].items()}, "p99 by stage, ms", log=True)

    def distribution(axes: Any) -> None:
        for kind, curve in result["curves"].items():
            if curve:
                axes.plot([x for x, _ in curve], [max(1 - y, 1e-6) for _, y in curve], label=kind, linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("ms, sent to published")
        axes.set_ylabel("share that took longer")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)

    drawn: list[tuple[str, Callable[[Any], None]]] = [
        ("Latency over time; shaded: faults", totals),
        ("Latency by stage over time", stages),
        ("Distribution of latency: the share that took longer than so many ms", distribution),
        (
            "Judgements in one batch, by what was published (hops are not)",
            lambda axes: lines(axes, {"mean": slots["batch_mean"], "greatest": slots["batch_max"]}, "judgements"),
        ),
        (
            "Age of the oldest bed's newest sample",
            lambda axes: lines(axes, {"oldest": slots["age_ms"]}, "ms", log=True),
        ),
        (
            "Published",
            lambda axes: lines(
                axes, {"messages": slots["messages_per_s"], "samples / 100": slots["samples_per_s"]}, "per s"
            ),
        ),
        ("Processor", lambda axes: lines(axes, slots["cores"], "cores")),
        ("Memory", lambda axes: lines(axes, slots["rss_mb"], "resident MB")),
        (
            "Samples and packets by fate, so far",
            lambda axes: lines(axes, {k: v for k, v in slots["counts"].items() if any(v)}, "n"),
        ),
        (
            "How late the producer's packets went out, so far",
            lambda axes: lines(axes, slots["pacing_ms"], "ms", log=True),
        ),
    ]
    return "".join(_figure(caption, draw) for caption, draw in drawn) if at else ""


def _figure(caption: str, draw: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    draw(figure.subplots())
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{_text(name)}</th>' for name in head)}</tr>{body}</table>"


def _verdict(held: bool | None) -> str:
    if held is None:
        return "not judged"
    return "<span class='ok'>held</span>" if held else "<span class='bad'>BROKEN</span>"


def _number(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, int) or (isinstance(value, float) and value == int(value) and abs(value) >= 100):
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _text(value: object) -> str:
    return html.escape(str(value))

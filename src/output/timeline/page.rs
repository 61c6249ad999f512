//! The page: HTML with its own style. It has no script and loads nothing. All data is escaped text.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::run::{Outcome, RunReport};
use super::super::summary::headline;
use super::super::text::bytes_in_words;
use super::super::trace::Span;
use super::Run;
use super::rows::{Group, Kind, Part, Row, State, groups, idle};

const STYLE: &str = include_str!("page.css");

/// The maximum number of marks on the axis.
const MARKS: f64 = 8.0;

/// The scale of the page's time axis.
struct Scale {
    /// The seconds from the left edge to the right edge.
    total: f64,
    /// The seconds between two marks.
    mark: f64,
}

impl Scale {
    fn new(seconds: f64) -> Self {
        let total = seconds.max(0.1);
        let steps = [1.0, 2.0, 5.0];
        let mark = (-1..6).flat_map(|power| steps.map(|step| step * 10_f64.powi(power))).find(|mark| total / mark <= MARKS);
        Self { total, mark: mark.unwrap_or(total) }
    }

    fn percent(&self, seconds: f64) -> f64 {
        (seconds / self.total * 100.0).clamp(0.0, 100.0)
    }

    fn place(&self, span: Span) -> String {
        let left = self.percent(span.start);
        format!("left:{left:.3}%;width:{:.3}%", self.percent(span.end) - left)
    }
}

/// Returns the whole page.
pub(super) fn page(run: &Run, report: &RunReport, error: Option<&str>) -> String {
    let groups = groups(run, report);
    let ends = groups.iter().flat_map(|group| &group.rows).flat_map(|row| &row.bars).map(|(_, span)| span.end);
    let scale = Scale::new(ends.fold(report.seconds.total.max(run.ended.seconds_since(run.began)), f64::max));
    let title = title(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { (title) }
                @if let Some(headline) = headline(report) { p.sum { (headline) } }
                p.soft { (began(run)) " · hakobi " (report.version) (engine(report)) (ci(report)) }
                @if let Some(error) = error { pre.bad { (super::text::clean(error)) } }
                (figures(report))
                (legend())
                (axis(&scale))
                (nothing(&groups, &scale))
                @for group in &groups {
                    h2 { (group.name) }
                    @for row in &group.rows { (self::row(row, &scale)) }
                }
                (remarks(run, report))
            } }
        }
    };
    // A CI may show the page in a log, where lines could be commands.
    super::text::harmless(&page.into_string()).into_owned()
}

fn title(report: &RunReport) -> String {
    match report.images.iter().flat_map(|image| &image.tags).next() {
        Some(tag) => tag.reference.clone(),
        None if report.outcome == Outcome::Failure => "A run that failed".to_owned(),
        None => "A run of hakobi".to_owned(),
    }
}

fn began(run: &Run) -> String {
    run.began.0.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn engine(report: &RunReport) -> String {
    if report.engine.version.is_empty() { String::new() } else { format!(" · Docker {}", report.engine.version) }
}

fn ci(report: &RunReport) -> String {
    match (&*report.ci.provider, &*report.ci.commit) {
        ("", _) => String::new(),
        (provider, "") => format!(" · {provider}"),
        (provider, commit) => format!(" · {provider}, commit {}", commit.get(..12).unwrap_or(commit)),
    }
}

fn figures(report: &RunReport) -> Markup {
    let bytes = report.bytes;
    html! {
        div.figures {
            (figure(&format!("{:.1} s", report.seconds.total), "in all"))
            @if report.outcome == Outcome::Success && !report.steps.is_empty() { (figure(report.tier.name(), "tier")) }
            @if let Some(cold) = &report.last_cold { (figure(&format!("{:.1} s", cold.seconds), "the last cold build")) }
            @if report.outcome == Outcome::Success {
                (figure(&bytes_in_words(bytes.restored), "from the cache"))
                (figure(&bytes_in_words(bytes.pushed), "to the registry"))
                (figure(&bytes_in_words(bytes.saved), "to the cache"))
            }
            @if bytes.context > 0 { (figure(&bytes_in_words(bytes.context), "of the context")) }
        }
    }
}

fn figure(value: &str, of: &str) -> Markup {
    html! { div { b { (value) } span { (of) } } }
}

fn legend() -> Markup {
    let all = [("", "work"), ("transfer", "bytes on their way"), ("waiting", "waiting"), ("cached", "found in a cache")];
    html! {
        div.legend {
            @for (kind, name) in all { span { i.bar.(kind) style="position:static" {} (name) } }
            span { i.bar.failed style="position:static" {} "failed" }
        }
    }
}

fn axis(scale: &Scale) -> Markup {
    let mut marks = Vec::new();
    let mut at = 0.0;
    // A later mark would be beyond the right edge.
    while at <= scale.total * 0.985 {
        marks.push(at);
        at += scale.mark;
    }
    let decimals = usize::from(scale.mark < 1.0);
    html! {
        div.axis {
            div {}
            div.track {
                @for at in marks { span style={ "left:" (format!("{:.3}", scale.percent(at))) "%" } { (format!("{at:.decimals$}")) } }
            }
            div.number.soft { "seconds" }
            div.number.soft { "moved" }
        }
    }
}

/// Returns the row of times without any event: the run waited or computed.
fn nothing(groups: &[Group], scale: &Scale) -> Markup {
    let idle = idle(groups, scale.total);
    let seconds: f64 = idle.iter().map(|span| span.seconds()).sum();
    let bars: Vec<(Kind, Span)> = idle.into_iter().map(|span| (Kind::Waiting, span)).collect();
    html! {
        @if !bars.is_empty() {
            div.row {
                div.name.soft { "in between: reading, hashing, deciding, waiting for answers" }
                (track(&bars, None, scale))
                div.number { (format!("{seconds:.1}")) }
                div {}
            }
        }
    }
}

fn row(row: &Row, scale: &Scale) -> Markup {
    let line = html! {
        div {
            div.name.bad[matches!(row.state, State::Failed)].soft[matches!(row.state, State::Cached)] title=(row.name) { (row.name) }
            @if let Some(why) = why(row) { div.why title=(why) { (why) } }
        }
        (track(&row.bars, Some(row.state), scale))
        div.number { (format!("{:.1}", row.seconds())) }
        div.number { @if row.bytes() > 0 { (bytes_in_words(row.bytes())) } }
    };
    // A single part would only repeat its row.
    let has_parts = row.parts.len() > 1;
    html! {
        @if has_parts || !row.log.is_empty() {
            details open[!row.log.is_empty()] {
                summary.row { (line) }
                @if has_parts { @for part in &row.parts { (self::part(part, scale)) } }
                @if !row.log.is_empty() { pre { (row.log.join("\n")) } }
            }
        } @else {
            div.row { (line) }
        }
    }
}

fn why(row: &Row) -> Option<String> {
    match row.state {
        State::Failed => Some("failed".to_owned()),
        State::Stopped => Some("stopped, because something else failed".to_owned()),
        State::Cached | State::Ran if row.reason.is_empty() => None,
        State::Cached | State::Ran => Some(super::text::title(&row.reason)),
    }
}

fn part(part: &Part, scale: &Scale) -> Markup {
    html! {
        div.row.part {
            div.name title=(part.name) { (part.name) }
            (track(&[(Kind::Transfer, part.span)], None, scale))
            div.number { (format!("{:.1}", part.span.seconds())) }
            div.number { @if part.bytes > 0 { (bytes_in_words(part.bytes)) } }
        }
    }
}

fn track(bars: &[(Kind, Span)], state: Option<State>, scale: &Scale) -> Markup {
    let class = |kind: Kind, span: &Span| match kind {
        Kind::Waiting => "waiting",
        Kind::Failed => "failed",
        Kind::Transfer => "transfer",
        Kind::Work if state == Some(State::Cached) && span.seconds() < 0.1 => "cached",
        Kind::Work => "",
    };
    let says = |kind: Kind, span: &Span| {
        let what = if kind == Kind::Waiting { "waited " } else { "" };
        format!("{what}{:.2} s, from {:.2} to {:.2}", span.seconds(), span.start, span.end)
    };
    html! {
        div.track style={ "--tick:" (format!("{:.4}", scale.percent(scale.mark))) "%" } {
            @for (kind, span) in bars { div.bar.(class(*kind, span)) style=(scale.place(*span)) title=(says(*kind, span)) {} }
        }
    }
}

fn remarks(run: &Run, report: &RunReport) -> Markup {
    html! {
        @if !run.remarks.is_empty() {
            h2 { "Told" }
            ul { @for remark in &run.remarks {
                li.warn[remark.is_warning] { (format!("{:.1} s: ", remark.at.seconds_since(run.began))) (remark.text) }
            } }
        }
        @if !report.advice.is_empty() {
            h2 { "Advice" }
            ul { @for advice in &report.advice {
                li { @if advice.line > 0 { code { (super::text::title(&advice.file)) ":" (advice.line) } " " } (super::text::clean(&advice.text)) }
            } }
        }
    }
}

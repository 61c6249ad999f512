//! Says of each step why it runs, and shows what was kept.

use std::collections::HashSet;

use crate::domain::Digest;
use crate::event::{Event, Status, Time, Vertex};
use crate::graph::{Input, Key, Op};
use crate::output::{AdviceReport, Note};
use crate::plan::{Advice, Inputs, Verdict};
use crate::planner::build_plan::BuildPlan;
use crate::run::built::Built;
use crate::run::context::BuildContext;

/// Says of each step that is not kept why, and of the first one aloud.
pub fn explain(context: &BuildContext<'_>, built: &mut Built, plan: &BuildPlan, before: Option<&Inputs>, now: &Inputs) {
    let mut reasons = crate::plan::explain(&plan.graph, &plan.decision, before, now);
    let mut first = before.is_some();
    for op in plan.graph.below(plan.graph.result()) {
        let Some(verdict) = plan.decision.verdicts.get(&op.digest) else { continue };
        let reason = reasons.remove(&op.digest).unwrap_or_default();
        if !reason.is_empty() && std::mem::take(&mut first) {
            context.events.note(format!("first changed step: {}: {reason}", op.name));
        }
        let key = match plan.keys.state(&Input { step: op.digest.clone(), output: 0 }) {
            Key::Known(key) => key.to_string(),
            _ => String::new(),
        };
        let note = Note { key, reason, uncacheable: matches!(verdict, Verdict::Uncacheable(_)) };
        built.notes.insert(op.digest.to_string(), note);
    }
}

/// Says what would have made the build cheaper, given what ran and what that took.
pub fn advise(
    context: &BuildContext<'_>,
    built: &mut Built,
    plan: &BuildPlan,
    ran: &HashSet<Digest>,
    before: Option<&Inputs>,
    now: &Inputs,
) {
    for advice in crate::plan::advise(&plan.graph, ran, before, now) {
        context.events.note(format!("advice: {}:{}: {}", advice.file, advice.line, advice.text));
        built.report.advice.push(advice_report(advice));
    }
}

/// Advice as reports have it.
pub fn advice_report(advice: Advice) -> AdviceReport {
    let Advice { file, line, seconds, text } = advice;
    AdviceReport { file, line, seconds, text }
}

/// Shows what is kept, as BuildKit shows what it finds cached.
pub fn show_hits(context: &BuildContext<'_>, plan: &BuildPlan) {
    show(context, plan, |verdict| match verdict {
        Verdict::Hit => Some((true, true)),
        Verdict::Skipped => Some((false, false)),
        _ => None,
    });
}

/// Shows what was made here, as BuildKit shows what it made.
pub fn show_assembled(context: &BuildContext<'_>, plan: &BuildPlan) {
    show(context, plan, |verdict| verdict.runs().then_some((true, false)));
}

/// Shows steps: whether they came to their end, and whether they were kept.
pub fn show(context: &BuildContext<'_>, plan: &BuildPlan, of: impl Fn(&Verdict) -> Option<(bool, bool)>) {
    let now = Time::now();
    let vertex = |op: &Op| {
        let (ended, cached) = of(plan.decision.verdicts.get(&op.digest)?)?;
        Some(Vertex {
            digest: op.digest.to_string(),
            inputs: Vec::new(),
            name: op.name.clone(),
            started: ended.then_some(now),
            completed: ended.then_some(now),
            cached,
            error: String::new(),
        })
    };
    let vertexes = plan.graph.below(plan.graph.result()).into_iter().filter_map(vertex).collect();
    context.events.emit(Event::Status(Status { vertexes, ..Status::default() }));
}

//! Explains why each step runs, and shows the cached steps.

use std::collections::HashSet;

use crate::domain::{COPIED_AGAIN, Digest};
use crate::event::{Event, Status, Time, Vertex};
use crate::graph::{Input, Key, Op};
use crate::output::{AdviceReport, Note};
use crate::plan::{Advice, Inputs, Verdict};
use crate::planner::build_plan::BuildPlan;
use crate::run::built::Built;
use crate::run::context::BuildContext;

/// Adds to the report why each step runs, and notes the reason of the first one.
pub fn explain(context: &BuildContext<'_>, built: &mut Built, plan: &BuildPlan, before: Option<&Inputs>, now: &Inputs) {
    let mut reasons = crate::plan::explain(&plan.graph, &plan.decision, before, now);
    let mut first = before.is_some();
    for op in plan.graph.below(plan.graph.result()) {
        let Some(verdict) = plan.decision.verdicts.get(&op.digest) else { continue };
        let reason = reasons.remove(&op.digest).unwrap_or_default();
        if !reason.is_empty() && reason != COPIED_AGAIN && std::mem::take(&mut first) {
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

/// Notes advice that would make the build cheaper, by which steps ran and how long they took.
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

/// Returns advice in the form of the report.
pub fn advice_report(advice: Advice) -> AdviceReport {
    let Advice { file, line, seconds, text } = advice;
    AdviceReport { file, line, seconds, text }
}

/// Shows cached steps, like BuildKit shows its cached steps.
pub fn show_hits(context: &BuildContext<'_>, plan: &BuildPlan) {
    show(context, plan, |verdict| match verdict {
        Verdict::Hit => Some((true, true)),
        Verdict::Skipped => Some((false, false)),
        _ => None,
    });
}

/// Shows the steps that hakobi assembled, like BuildKit shows steps that ran.
pub fn show_assembled(context: &BuildContext<'_>, plan: &BuildPlan) {
    show(context, plan, |verdict| verdict.runs().then_some((true, false)));
}

/// Shows steps: whether they ended, and whether they were cached.
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

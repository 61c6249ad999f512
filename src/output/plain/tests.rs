//! Recorded runs as lines.

use super::super::testing::{Script, at, eventful, part};
use super::*;
use crate::event::Event;

/// Prints after every event, like a terminal that is never slow.
fn printed(script: &Script, color: bool) -> String {
    let (mut plain, mut trace) = (Plain::new(Paint(color)), Trace::default());
    let mut out = String::new();
    let mut now = 0.0;
    for (seconds, event) in script.events() {
        now = *seconds;
        if let Event::Status(status) = event {
            trace.apply(status, at(now));
        }
        out.push_str(&plain.print(&mut trace, at(now), false));
    }
    out + &plain.print(&mut trace, at(now), true)
}

#[test]
fn an_eventful_run() {
    let out = printed(&eventful(), false);
    assert!(!out.contains('\u{1b}'));
    insta::assert_snapshot!(out);
}

#[test]
fn a_lazy_layer_is_begun_twice() {
    let mut script = Script::new();
    script.run("a", "[1/2] FROM alpine", 0.0, 0.1);
    script.run("b", "[2/2] RUN true", 0.2, 0.3);
    script.run("a", "[1/2] FROM alpine", 1.0, 2.0);
    insta::assert_snapshot!(printed(&script, false));
}

#[test]
fn a_silent_unended_line_is_shown_in_time() {
    let mut script = Script::new();
    script.begin("a", "[2/2] RUN test", 0.0);
    for second in 1..=12 {
        script.log(f64::from(second), "a", ".");
    }
    script.log(13.0, "a", "ok\n");
    insta::assert_snapshot!(printed(&script, false));
}

#[test]
fn the_word_is_passed_on() {
    let mut script = Script::new();
    script.begin("a", "[a 2/2] RUN a", 0.0);
    script.begin("b", "[b 2/2] RUN b", 0.0);
    for second in 1..=12 {
        script.log(f64::from(second), "a", "a\n");
        script.log(f64::from(second), "b", "b\n");
    }
    script.run("b", "[b 2/2] RUN b", 0.0, 13.0);
    insta::assert_snapshot!(printed(&script, false));
}

#[test]
fn a_part_that_outlives_its_step() {
    let mut script = Script::new();
    script.begin("a", "importing cache manifest", 0.0);
    script.progress(0.1, part("a", "inferred cache manifest type", 0, 0, None));
    script.run("a", "importing cache manifest", 0.0, 0.2);
    script.run("b", "[2/2] RUN b", 0.3, 0.4);
    script.progress(0.5, part("a", "inferred cache manifest type", 0, 0, Some(0.5)));
    insta::assert_snapshot!(printed(&script, false));
}

#[test]
fn colour_marks_faults_only() {
    let mut script = Script::new();
    script.fail("a", "[2/2] RUN a", 0.0, 1.0, "exit code: 1");
    assert!(printed(&script, true).contains("#1 \u{1b}[31mERROR: exit code: 1\u{1b}[0m\n"));
}

#[test]
fn a_failure_does_not_wait_for_its_parts() {
    let mut script = Script::new();
    script.begin("a", "pushing layers", 0.0);
    script.progress(0.1, part("a", "sha256:ab", 1, 2, None));
    script.fail("a", "pushing layers", 0.0, 0.2, "denied");
    script.run("b", "[2/2] RUN b", 0.3, 0.4);
    let out = printed(&script, false);
    assert!(out.find("#1 ERROR: denied") < out.find("#2 [2/2]"), "{out}");
}

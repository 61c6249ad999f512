//! `hakobi promote SRC TAG…`: releases or rolls back an image by writing its manifest under other tags.

use std::fmt::Write;

use crate::domain::ImageRef;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::push;
use crate::registry::Registries;
use crate::settings::PushSettings;

/// Returns what a tag points to now, and what it pointed to before.
///
/// # Errors
/// If there is no such tag, or the registry cannot be read.
pub async fn history(registries: &Registries, image: &ImageRef) -> Result<String> {
    let push::History { now, before } = push::history(registries, image).await?;
    let made = |standing: &push::Standing| match standing.created.get(..16) {
        Some(time) => format!(", made {}", time.replace('T', " ")),
        None => String::new(),
    };
    let mut text = format!("{} points to {}{}\n", now.tag, now.digest, made(&now));
    if before.is_empty() {
        text.push_str("no earlier images are recorded (`hakobi promote` records them, a push does not)\n");
    }
    for earlier in &before {
        let _ = writeln!(text, "  before: {}{}\n    hakobi promote {} {}", earlier.digest, made(earlier), earlier.tag, now.tag);
    }
    Ok(text)
}

/// Promotes an image. Returns what each tag pointed to before, and what it points to now.
///
/// # Errors
/// If the source does not exist or a tag failed; hakobi tries all tags.
pub async fn promote(
    registries: &Registries,
    source: &ImageRef,
    targets: &[ImageRef],
    settings: &PushSettings,
    events: &Events,
) -> Result<String> {
    let promotions = push::promote(registries, events, source, targets, settings).await?;
    let mut text = String::new();
    let (mut failures, mut hint) = (Vec::new(), None);
    for promotion in &promotions {
        let before = promotion.previous.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let line = match &promotion.state {
            Ok(None) => writeln!(text, "{}: skipped, it already points to {before}", promotion.target),
            Ok(Some(_)) => writeln!(text, "{}: {before} -> {}", promotion.target, promotion.digest),
            Err(error) => {
                failures.push(format!("{}: {error}", promotion.target));
                hint = hint.or(error.hint());
                Ok(())
            }
        };
        // Writing into a String does not fail.
        let _ = line;
        if let Some(kept) = &promotion.kept_as {
            let _ = writeln!(text, "  recorded as {kept}; to roll back: hakobi promote {kept} {}", promotion.target);
        }
    }
    if !failures.is_empty() {
        // Print the tags that moved, and how to roll them back, before the error for the others.
        text.lines().for_each(|line| events.note(line));
        return Err(Error::push(failures.join("\n")).hint_if(hint));
    }
    text.push_str(
        "No running ECS service changed: a service uses a moved tag only after a new deployment:\n  \
         aws ecs update-service --cluster CLUSTER --service SERVICE --force-new-deployment\n",
    );
    Ok(text)
}

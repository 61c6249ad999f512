//! `--verify`: the daemon adds the appended files again, to the whole base image, and hakobi compares the layers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::build_context::{NodeKind, Tree};
use crate::cache::layer_index::read_tree;
use crate::engine::buildkit::{Export, Gateway, SolveRequest, Solved};
use crate::engine::{BorrowedName, StoreKind};
use crate::error::{Error, Kind, Result};
use crate::executor::execution::{Execution, Halt};
use crate::executor::graph_errors::broken;
use crate::executor::progress::SolveProgress;
use crate::executor::{solve, substitutions};
use crate::handover::{Intake, Known, out_of_space_error};
use crate::local_registry::Endpoint;
use crate::plan::appendable;
use crate::planner::build_plan::BuildPlan;
use crate::planner::replan::Replan;
use crate::publish::release::Released;
use crate::save::{Exit, bare_config};
use crate::transfer::compress::plain;

/// The name of the second image at its endpoint.
pub const NAME: &str = "again";

/// Adds the files to the whole base image and compares the layers.
///
/// # Errors
/// If the layers differ, or the daemon cannot make them.
pub async fn verify(execution: &Execution<'_>, plan: &BuildPlan, progress: &SolveProgress, released: &Released) -> Result<()> {
    let Execution { daemon, imports, .. } = *execution;
    let context = &daemon.context;
    let open = appendable(&plan.graph, &plan.decision);
    let ([image], Some(open)) = (&released.images[..], open) else { return Ok(()) };
    let chain = plan.graph.chain_of(plan.graph.result());
    let kept_part = chain.links.iter().find(|link| Some(&link.state) == open.base_state.as_ref()).map_or(0, |link| link.layers);
    let new = chain.layers() - kept_part;
    let (below, ours) = image.layers.split_at(image.layers.len().saturating_sub(new));
    let failed = |what: &str| Error::build(format!("--verify: {what}"));
    let step = context.events.step("[hakobi] verifying appended layers on the whole base");
    let directory = crate::transfer::temp_dir(Kind::Build)?;
    let intake = Intake::new(Vec::new(), Known::default(), context.build.push_settings.compression, directory.path().to_owned());
    below.iter().zip(&image.diff_ids).for_each(|(layer, diff_id)| intake.pass_over(layer, diff_id));
    let endpoint = Endpoint::start(Arc::new(intake.clone()), directory.path().to_owned());
    let endpoint = endpoint.await.map_err(|error| failed("failed to listen on 127.0.0.1").because(&error))?;
    directory.remember(endpoint.secret_path());
    let reference = endpoint.reference(NAME);
    let exit = daemon.transport.exit(&daemon.info, false);
    let export = match exit {
        Exit::Straight => Export::to_registry(&reference),
        Exit::Pushed | Exit::Saved => Export::into_daemon(&[reference.to_string()]),
    };
    let mut again = SolveProgress {
        solved: progress.solved.clone(),
        substitutions: progress.substitutions.clone(),
        ..SolveProgress::default()
    };
    let result = plan.graph.result();
    let request =
        SolveRequest { exports: vec![export], entitlements: context.build.entitlements.clone(), ..SolveRequest::default() };
    let platform = plan.platform()?;
    let config = bare_config(&platform);
    // Borrowed before the image exists, so that hakobi removes the name whatever happens meanwhile.
    let borrowed = (exit != Exit::Straight).then(|| daemon.docker.borrow(reference.clone()));
    let made = loop {
        intake.begin(NAME);
        again.substitutions.extend(substitutions::of_plan(execution, plan, None)?);
        let rewritten = again.rewritten(plan, result).map_err(|error| broken(&error))?;
        let (definition, config, imports) = (&rewritten.definition, &config, &imports.imports);
        let ask = |mut gateway: Gateway| async move {
            let solved = gateway.graph(definition.clone(), imports, false).await?;
            Ok(Solved { metadata: [("containerimage.config".to_owned(), config.clone())].into(), ..solved })
        };
        match solve::attempt(execution, &[&rewritten], request.clone(), &mut again, None, ask).await {
            Ok(solved) => break solved.made(),
            Err(Halt::Failed(error)) => return Err(error),
            Err(Halt::Replan(why @ Replan::BypassBaseProxy(_))) => again.replanned(&why, context.events),
            Err(Halt::Replan(_)) => return Err(failed("failed to get the base image")),
        }
    };
    borrowed.into_iter().for_each(BorrowedName::hand_on);
    tokio::select! {
        handed = exit.hand_over(&daemon.docker, &reference, &intake, NAME, made) => handed?,
        why = endpoint.out_of_space() => return Err(out_of_space_error(&why)),
    }
    let (theirs, _) = intake.layers_above(NAME, below.len()).await?;
    if ours.len() != theirs.len() {
        return Err(failed(&format!("the whole base gives {} layers, but the append gave {}", theirs.len(), ours.len())));
    }
    for (place, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        let unreadable = |error: std::io::Error| failed("failed to read a layer again").because(&error);
        let bytes = match released.release.intake().arrived(&our.digest).await.map_err(unreadable)? {
            Some(bytes) => bytes,
            None => {
                let from = context.registries.home(released.release.repository()?);
                from.open_blob(&our.digest, Some(our.size), 0).await.map_err(|error| Error::push(error.to_string()))?
            }
        };
        let our = read_tree(plain(bytes).await.map_err(unreadable)?).await.map_err(unreadable)?;
        let arrived = intake.arrived(&their.blob.digest).await.map_err(unreadable)?;
        let arrived = arrived.ok_or_else(|| failed("the daemon pushed no layer"))?;
        let their = read_tree(plain(arrived).await.map_err(unreadable)?).await.map_err(unreadable)?;
        // The containerd store omits files from a layer that are the same in the layers below.
        let complete = daemon.info.store == StoreKind::GraphDriver;
        if let Some(path) = differing(&our, &their, complete) {
            let step = open.steps.get(place).and_then(|step| plan.graph.op(step));
            let name = step.map(|op| crate::graph::instruction_of(&op.name)).unwrap_or_default();
            return Err(failed(&format!(
                "/{} differs in the layer that `{name}` makes on the whole base",
                crate::domain::shown(&path)
            ))
            .hint("report this bug of hakobi; the pushed image has the layer made without the base"));
        }
    }
    step.done();
    context.events.note(format!("verified: {} layers are identical on the whole base", ours.len()));
    Ok(())
}

/// Returns the first path in which two layers differ, or `None`. Times do not count.
pub fn differing(ours: &Tree, theirs: &Tree, complete: bool) -> Option<String> {
    let (ours, theirs): (HashMap<_, _>, HashMap<_, _>) = (ours.iter().collect(), theirs.iter().collect());
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let is_whiteout = |path: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh."));
    let differs = |path: &&&String| match (ours.get(**path), theirs.get(**path)) {
        (Some(our), Some(their)) => our != their && !(is_whiteout(path) && matches!(their.kind, NodeKind::File(_))),
        (Some(_), None) => complete,
        (None, _) => true,
    };
    paths.iter().find(differs).map(|path| (**path).clone())
}

//! Makes an image that is its base image with another configuration: no command runs, and no daemon pulls the base.

use crate::cache::session::CacheSession;
use crate::executor::execution::OrHalt;
use crate::executor::graph_errors::broken;
use crate::executor::outcome::{Maker, NewLayers, Outcome};
use crate::executor::reuse::{composed, image_of};
use crate::handover::KnownImage;
use crate::planner::bases;
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::{PutOutcome, Release};
use crate::run::context::BuildContext;

/// Pushes the base image's layers with this build's configuration. A registry that has the layers mounts them. Returns `None` if
/// the base image's registry does not supply them.
pub async fn put_base(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    cache: &CacheSession,
    base: &KnownImage,
) -> OrHalt<Option<Outcome>> {
    let layers = bases::layers(base);
    let image = image_of(context, plan, &layers).map_err(|error| broken(&error))?;
    let keep = cache.target().map(|target| target.repository);
    let settings = &context.build.push_settings;
    let release = Release::open(&context.registries, &context.tags, keep.as_ref(), settings, &[], context.events).await?;
    match release.put_from(composed(image.manifest, image.config)?, base).await? {
        PutOutcome::Done(released) => {
            let new = NewLayers { of_base: Some(layers), ..NewLayers::default() };
            Ok(Some(Outcome::pushed(released, Maker::Hakobi(new))))
        }
        PutOutcome::Not(_) => Ok(None),
    }
}

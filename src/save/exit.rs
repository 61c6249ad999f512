//! The ways in which images leave the daemon.

use crate::domain::{ImageRef, Made};
use crate::engine::Docker;
use crate::error::Result;
use crate::handover::Intake;

/// The way in which an image leaves the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// BuildKit itself pushes to the loopback endpoint.
    Straight,
    /// The daemon has the image and pushes it to the loopback endpoint.
    Pushed,
    /// The daemon has the image and cannot reach this host: hakobi reads it as an archive.
    Saved,
}

impl Exit {
    /// Hands the image of this name to the intake. The name is hakobi's own and is removed afterwards. Only the image that the
    /// daemon made is accepted.
    ///
    /// # Errors
    /// If the daemon refuses, or the image cannot be taken.
    pub async fn hand_over(
        self,
        docker: &Docker,
        reference: &ImageRef,
        intake: &Intake,
        name: &str,
        mut made: Made,
    ) -> Result<()> {
        if self != Self::Straight {
            let borrowed = docker.borrow(reference.clone());
            let id = docker.image_id(&reference.to_string()).await?;
            made.digests.extend(id.and_then(|id| id.parse().ok()));
            borrowed.hand_on();
        }
        intake.expect(name, made, self == Self::Pushed);
        match self {
            Self::Straight => Ok(()),
            Self::Pushed => docker.push_and_untag(reference).await,
            Self::Saved => {
                let take = async |archive| intake.take_archive(archive, reference, name).await;
                docker.save_and_untag(reference, take).await
            }
        }
    }
}

//! The daemon's REST API, on hakobi's own connections.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::query_parameters::{
    CreateImageOptions, ImportImageOptions, ListImagesOptions, PushImageOptions, RemoveImageOptions, TagImageOptions,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest};
use futures::{StreamExt, TryStreamExt};
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::sync::CancellationToken;

use super::dial::{Dialer, Stream};
use crate::debug::Request;
use crate::domain::{DiffId, ImageRef};
use crate::error::{Error, Result};
use crate::shutdown;
use crate::transfer::ByteStream;

/// The time limit for the daemon's first answer to a request, in seconds. It is generous: a busy overlay2 daemon answers an
/// inspection late.
const ANSWER_SECONDS: u64 = 300;

/// The time limit for a daemon's answer to a ping.
const PING: Duration = Duration::from_secs(5);
/// The number of pings, and the pause after the first, before hakobi decides that a daemon is gone. Service managers restart a
/// daemon within seconds.
const PINGS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// How long an interrupted operation may run on in the daemon, before hakobi no longer waits to remove the image's name.
const OPERATIONS_END: Duration = Duration::from_secs(3);

/// The kind of image store of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A graph driver (overlay2).
    GraphDriver,
    /// The containerd image store.
    Containerd,
}

impl StoreKind {
    /// Returns the name in records. It must never change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GraphDriver => "GraphDriver",
            Self::Containerd => "Containerd",
        }
    }
}

/// The facts that hakobi requests from a daemon once.
#[derive(Debug, Clone)]
pub struct EngineInfo {
    /// The daemon's own ID. It stays the same as long as the daemon keeps its data.
    pub id: String,
    /// The version: `28.5.2`.
    pub version: String,
    /// The API version: `1.51`.
    pub api: (u32, u32),
    /// The kind of image store.
    pub store: StoreKind,
    /// The daemon's own platform: `linux/amd64`.
    pub platform: String,
}

/// A connection to the daemon.
#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
    dialer: Dialer,
}

impl Docker {
    /// Asks the daemon for its version.
    ///
    /// # Errors
    /// If no daemon answers at this address.
    pub async fn connect(dialer: Dialer) -> Result<Self> {
        let client = Client::builder(TokioExecutor::new()).build(Connector(dialer.clone()));
        let host = dialer.origin().to_owned();
        let transport = move |request: BollardRequest| {
            let client = client.clone();
            let shown = Request::new("daemon", request.method().as_str(), &host, request.uri().path(), 1);
            async move {
                let sent = shown.send(client.request(request), |answer| answer.status().as_u16(), |error| chain(error)).await;
                sent.map_err(|error| bollard::errors::Error::IOError { err: std::io::Error::other(chain(&error)) })
            }
        };
        // bollard never looks up this name: the dialler opens every connection.
        let api =
            bollard::Docker::connect_with_custom_transport(transport, Some("http://docker"), ANSWER_SECONDS, API_DEFAULT_VERSION)
                .map_err(|error| Error::no_daemon("failed to set up the Docker client").because(&error))?;
        let api = api.negotiate_version().await.map_err(|error| {
            Error::no_daemon(format!("no Docker daemon answers at {}", dialer.origin())).because(&error).hint(dialer.hint())
        })?;
        Ok(Self { api, dialer })
    }

    /// Returns the dialler of this daemon.
    #[must_use]
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Returns whether the daemon answers now.
    pub async fn answers(&self) -> bool {
        let answer = tokio::time::timeout(PING, self.api.ping()).await;
        answer.is_ok_and(|answer| answer.is_ok())
    }

    /// Returns the error for a connection that broke off in a build: the daemon is gone, or it restarted. Pings the daemon for some
    /// seconds.
    pub async fn went_away(&self, how: &str) -> Error {
        const WHY: &str = "see `journalctl -u docker` for the reason, and `dmesg` for whether the machine ran out of memory";
        for attempt in 0..PINGS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            if self.answers().await {
                return Error::build(format!(
                    "lost the connection to the Docker daemon: {how}. The daemon was restarted and answers again"
                ))
                .hint(format!("build again; {WHY}"));
            }
        }
        Error::build(format!("lost the Docker daemon, which no longer answers at {}: {how}", self.dialer.origin()))
            .hint(format!("start it and build again; {WHY}"))
    }

    /// Returns the facts about this daemon.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn info(&self) -> Result<EngineInfo> {
        let failed = |error| Error::no_daemon("failed to get the Docker daemon's version").because(&error);
        let version = self.api.version().await.map_err(failed)?;
        let info = self.api.info().await.map_err(failed)?;
        let containerd = info.driver_status.iter().flatten().any(
            |pair| matches!(&pair[..], [key, value] if key == "driver-type" && value.starts_with("io.containerd.snapshotter")),
        );
        Ok(EngineInfo {
            id: info.id.unwrap_or_default(),
            version: version.version.unwrap_or_default(),
            api: version.api_version.as_deref().and_then(parse_api).unwrap_or((1, 40)),
            store: if containerd { StoreKind::Containerd } else { StoreKind::GraphDriver },
            platform: format!("{}/{}", version.os.as_deref().unwrap_or("linux"), version.arch.as_deref().unwrap_or("amd64")),
        })
    }

    /// Returns the ID of an image. Returns `None` if the daemon has no image of this name.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn image_id(&self, name: &str) -> Result<Option<String>> {
        match self.api.inspect_image(name).await {
            Ok(image) => Ok(image.id),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::build(format!("failed to inspect the image {name} in the daemon")).because(&error)),
        }
    }

    /// Returns the layers of an image, from the base up. Returns `None` if the daemon has no image of this name.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn image_layers(&self, name: &str) -> Result<Option<Vec<DiffId>>> {
        match self.api.inspect_image(name).await {
            Ok(image) => {
                let layers = image.root_fs.and_then(|root| root.layers).unwrap_or_default();
                Ok(layers.iter().map(|layer| layer.parse().ok()).collect())
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::build(format!("failed to inspect the image {name} in the daemon")).because(&error)),
        }
    }

    /// Returns the names of all images of the daemon.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn names(&self) -> Result<Vec<ImageRef>> {
        let failed = |error| Error::no_daemon("failed to list the images in the Docker daemon").because(&error);
        let images = self.api.list_images(None::<ListImagesOptions>).await.map_err(failed)?;
        Ok(images.into_iter().flat_map(|image| image.repo_tags).filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns the time since an image got its last name. Returns `None` if the daemon does not say. Docker writes the time after the
    /// name, and says until then, and of names that `docker load` and `docker pull` made, that the image was named in the year 1.
    pub async fn named_for(&self, name: &ImageRef) -> Option<Duration> {
        let image = self.api.inspect_image(&name.to_string()).await.ok()?;
        let at: jiff::Timestamp = image.metadata?.last_tag_time?.to_string().parse().ok()?;
        if at < jiff::Timestamp::UNIX_EPOCH {
            return None;
        }
        jiff::Timestamp::now().duration_since(at).try_into().ok()
    }

    /// Adds a name to an image.
    ///
    /// # Errors
    /// If the daemon refuses.
    pub async fn tag(&self, image: &str, name: &ImageRef) -> Result<()> {
        let options = TagImageOptions { repo: Some(name.repository.to_string()), tag: name.tag.clone() };
        self.api
            .tag_image(image, Some(options))
            .await
            .map_err(|error| Error::build(format!("failed to tag {image} as {name} in the daemon")).because(&error))
    }

    /// Removes a name, if the daemon has it. The daemon removes an image that has no other name and no user, but keeps its unnamed
    /// parents.
    ///
    /// # Errors
    /// If the daemon refuses.
    pub async fn untag(&self, name: &ImageRef) -> Result<()> {
        let options = RemoveImageOptions { force: false, noprune: true, ..RemoveImageOptions::default() };
        match self.api.remove_image(&name.to_string(), Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(Error::build(format!("failed to remove the name {name} from the daemon")).because(&error)),
        }
    }

    /// Wraps hakobi's own name of an image of the daemon.
    #[must_use]
    pub fn borrow(&self, name: ImageRef) -> BorrowedName {
        BorrowedName { docker: Some(self.clone()), name }
    }

    /// Asks the daemon to push an image under hakobi's own name, and then removes that name, even if the push fails.
    ///
    /// # Errors
    /// The daemon's error if the push fails, or an error if the name cannot be removed.
    pub async fn push_and_untag(&self, name: &ImageRef) -> Result<()> {
        let borrowed = self.borrow(name.clone());
        let pushed = self.push(name).await;
        let untagged = borrowed.give_back().await;
        pushed.and(untagged)
    }

    /// Asks the daemon to save an image under hakobi's own name, and then removes that name, even if saving fails. `take` gets the
    /// archive while the daemon writes it.
    ///
    /// # Errors
    /// Those of `take`, or an error if the name cannot be removed.
    pub async fn save_and_untag<T>(&self, name: &ImageRef, take: impl AsyncFnOnce(ByteStream) -> Result<T>) -> Result<T> {
        let borrowed = self.borrow(name.clone());
        let taken = take(self.saved(vec![name.to_string()])).await;
        let untagged = borrowed.give_back().await;
        taken.and_then(|taken| untagged.map(|()| taken))
    }

    /// Returns an archive of images while the daemon writes it (`docker save`).
    fn saved(&self, names: Vec<String>) -> ByteStream {
        let api = self.api.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut parts = std::pin::pin!(api.export_images(&names));
            while let Some(part) = parts.next().await {
                if sender.send(part.map_err(std::io::Error::other)).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(StreamReader::new(ReceiverStream::new(receiver)))
    }

    /// Asks the daemon to pull an image under hakobi's own name, adds this name, and removes hakobi's own.
    ///
    /// # Errors
    /// The daemon's error if the pull fails, or an error if a name cannot be added.
    pub async fn pull_as(&self, ours: &ImageRef, name: &ImageRef) -> Result<()> {
        let borrowed = self.borrow(ours.clone());
        let options = CreateImageOptions { from_image: Some(ours.to_string()), ..CreateImageOptions::default() };
        let mut messages = std::pin::pin!(self.api.create_image(Some(options), None, None));
        while let Some(message) = messages.next().await {
            let failed = match message {
                Ok(message) => message.error_detail.map(|detail| detail.message.unwrap_or_default()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(failed) = failed {
                return Err(Error::build(format!("failed to pull {name} into the daemon: {failed}")));
            }
        }
        let tagged = self.tag(&ours.to_string(), name).await;
        tagged.and(borrowed.give_back().await)
    }

    /// Returns the layers of every image of the daemon, each from the base up.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn layers(&self) -> Result<Vec<Vec<DiffId>>> {
        let failed = |error| Error::no_daemon("failed to list the images in the Docker daemon").because(&error);
        let images = self.api.list_images(None::<ListImagesOptions>).await.map_err(failed)?;
        let mut out = Vec::new();
        for image in images {
            // Someone may remove an image meanwhile.
            let Ok(image) = self.api.inspect_image(&image.id).await else { continue };
            let layers = image.root_fs.and_then(|root| root.layers).unwrap_or_default();
            out.push(layers.iter().filter_map(|layer| layer.parse().ok()).collect());
        }
        Ok(out)
    }

    /// Asks the daemon to send a request to the registry in this name. The answer does not matter; the registry only has to see the
    /// request.
    pub async fn ask_registry(&self, name: &ImageRef) {
        let _ = self.api.inspect_registry_image(&name.to_string(), None).await;
    }

    /// Loads an archive of images (`docker load`).
    ///
    /// # Errors
    /// The daemon's error, or the archive's error if the archive breaks off.
    pub async fn load(&self, archive: ByteStream) -> Result<()> {
        let fault = Arc::new(Mutex::new(None));
        let told = Arc::clone(&fault);
        let parts = ReaderStream::with_capacity(archive, 256 << 10).inspect_err(move |error| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        });
        // If the caller stops waiting, the archive breaks off. What the daemon has in full by then, it still loads and names.
        let abandoned = CancellationToken::new();
        let _guard = abandoned.clone().drop_guard();
        let rest = abandoned.clone();
        let rest = futures::stream::once(async move { rest.is_cancelled().then(|| Err(std::io::ErrorKind::Interrupted.into())) });
        let parts = parts.take_until(abandoned.cancelled_owned()).chain(rest.filter_map(std::future::ready));
        let (api, operation) = (self.api.clone(), self.dialer.operations().begin());
        let loaded = tokio::spawn(async move {
            let _operation = operation;
            let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
            let mut messages = std::pin::pin!(api.import_image_stream(options, parts, None));
            while let Some(message) = messages.next().await {
                let message = message.map_err(|error| error.to_string())?;
                if let Some(detail) = message.error_detail {
                    return Err(detail.message.unwrap_or_default());
                }
            }
            Ok(())
        });
        loaded.await.unwrap_or_else(|error| Err(error.to_string())).map_err(|failed| {
            let ours = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
            Error::build(format!("failed to load the image into the daemon: {}", ours.unwrap_or(failed)))
        })
    }

    /// Asks the daemon to push an image to the registry in its name, without credentials.
    ///
    /// # Errors
    /// The daemon's error if the push fails.
    pub async fn push(&self, name: &ImageRef) -> Result<()> {
        let options = PushImageOptions { tag: name.tag.clone(), ..PushImageOptions::default() };
        let mut messages = std::pin::pin!(self.api.push_image(&name.repository.to_string(), Some(options), None));
        while let Some(message) = messages.next().await {
            let message = match message {
                Ok(message) => message,
                Err(error) if is_cut_off(&error) => return Err(self.went_away(&chain(&error)).await),
                Err(error) => return Err(Error::push(format!("failed to push {name} from the daemon")).because(&error)),
            };
            if let Some(detail) = message.error_detail {
                return Err(Error::push(format!(
                    "failed to push {name} from the daemon: {}",
                    detail.message.unwrap_or_default()
                )));
            }
        }
        Ok(())
    }
}

/// hakobi's own name of an image in the daemon. If a run is interrupted, hakobi removes the name in the background, after the
/// operations that may still add it.
pub struct BorrowedName {
    docker: Option<Docker>,
    name: ImageRef,
}

impl BorrowedName {
    /// Gives up the name: the caller must remove it.
    pub fn hand_on(mut self) {
        self.docker = None;
    }

    /// Removes the name.
    ///
    /// # Errors
    /// If the daemon refuses.
    pub async fn give_back(mut self) -> Result<()> {
        match self.docker.take() {
            Some(docker) => docker.untag(&self.name).await,
            None => Ok(()),
        }
    }
}

impl Drop for BorrowedName {
    fn drop(&mut self) {
        if let Some(docker) = self.docker.take() {
            let name = self.name.clone();
            let _ = shutdown::spawn(async move {
                docker.dialer.operations().ended(OPERATIONS_END).await;
                docker.untag(&name).await
            });
        }
    }
}

fn parse_api(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Returns whether the daemon says that it has no such object.
fn is_missing(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
}

/// Returns whether the connection failed, and not the daemon's answer.
fn is_cut_off(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error;
    matches!(error, Error::IOError { .. } | Error::HyperResponseError { .. })
}

/// Returns the causes of an error. hyper's client itself says only "client error"; its cause has the reason.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// Opens connections for hyper's client, for any host in the request.
#[derive(Clone)]
struct Connector(Dialer);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Dialled>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(Dialled(dialer.dial().await?))) })
    }
}

struct Dialled(Stream);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Dialled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

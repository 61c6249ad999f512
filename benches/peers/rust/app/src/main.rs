//! A web service.

mod revision;
mod settings;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = settings::Flags::parse();
    if flags.revision {
        println!("{}", revision::revision());
        return Ok(());
    }
    tracing_subscriber::fmt().json().init();
    let settings = flags.settings()?;
    let shared = service::Shared { client: service::client()?, upstream: settings.upstream };
    let listener = tokio::net::TcpListener::bind(settings.listen).await?;
    tracing::info!(revision = revision::revision(), listen = %settings.listen, "up");
    axum::serve(listener, service::router(shared)).await?;
    Ok(())
}

//! The routes; those of each kind are in a module of their own.

mod routes;

use axum::Router;
use tower_http::trace::TraceLayer;

/// What all routes share.
#[derive(Clone)]
pub struct Shared {
    pub client: reqwest::Client,
    pub upstream: String,
}

/// Returns the routes of all kinds.
pub fn router(shared: Shared) -> Router {
    routes::all().layer(TraceLayer::new_for_http()).with_state(shared)
}

/// Makes the client that routes ask the upstream with.
pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().user_agent("app").build()
}

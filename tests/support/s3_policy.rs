//! Roles of the tests' S3 server. Their permissions are read from the documents, so that the tests check what the documents print.

use std::sync::{Arc, Mutex};

use http::{Method, Request};

/// An access key with a policy.
#[derive(Debug, Clone)]
pub struct Role {
    access_key: String,
    /// Actions on the whole bucket.
    actions: Vec<String>,
    /// The patterns of the keys that it may also write, with `*` at the end.
    writes: Vec<String>,
}

impl Role {
    /// Creates the role of a job that builds trusted branches: the row in docs/operations.md.
    pub fn trusted(access_key: &str) -> Self {
        Self { access_key: access_key.to_owned(), actions: actions_of("| builds of `main`"), writes: Vec::new() }
    }

    /// Creates the role of a pull request's job that may write its own scope: the read-only row in docs/operations.md, and the
    /// patterns for `PutObject` in docs/security.md.
    pub fn pull_request(access_key: &str, prefix: &str) -> Self {
        let text = document("security.md");
        let printed = text.split_once("allow `PutObject` only on").unwrap().1.split_once(", in a cache").unwrap().0;
        let patterns = quoted(printed).into_iter();
        let writes: Vec<_> = patterns.map(|pattern| pattern.replacen("PREFIX", prefix, 1)).collect();
        assert!(!writes.is_empty() && writes.iter().all(|pattern| pattern.ends_with('*')), "{writes:?}");
        Self { access_key: access_key.to_owned(), actions: actions_of("| builds of code of people"), writes }
    }

    /// Returns whether the policy allows an action on an object. The key is empty for the bucket.
    fn allows(&self, action: &str, key: &str) -> bool {
        let may_write = || self.writes.iter().any(|pattern| key.starts_with(pattern.trim_end_matches('*')));
        self.actions.iter().any(|allowed| allowed == action) || action == "s3:PutObject" && may_write()
    }
}

fn document(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the permissions for S3 in the row that begins like this.
fn actions_of(row: &str) -> Vec<String> {
    let text = document("operations.md");
    let row = text.lines().find(|line| line.starts_with(row)).unwrap();
    let actions: Vec<_> = quoted(row.split('|').nth(3).unwrap()).into_iter().map(str::to_owned).collect();
    assert!(actions.iter().any(|action| action == "s3:GetObject"), "{row}");
    actions
}

/// A request that the server got.
#[derive(Debug, Clone)]
pub struct Asked {
    pub access_key: String,
    pub method: Method,
    /// The action as a policy names it.
    pub action: &'static str,
    /// The object's key. It is empty for the bucket.
    pub key: String,
    pub is_refused: bool,
}

/// The roles of the server, the keys that expire, and a log of all requests. A key without a role may do everything.
#[derive(Clone, Default)]
pub struct Roles(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    roles: Vec<Role>,
    /// A key, and how many requests it is still valid for.
    expiring: Option<(String, u32)>,
    log: Vec<Asked>,
}

impl Roles {
    pub fn add(&self, role: Role) {
        self.0.lock().unwrap().roles.push(role);
    }

    pub fn expire_after(&self, access_key: &str, requests: u32) {
        self.0.lock().unwrap().expiring = Some((access_key.to_owned(), requests));
    }

    pub fn log(&self) -> Vec<Asked> {
        self.0.lock().unwrap().log.clone()
    }

    /// Logs a request. Returns the error if it is refused.
    pub fn refuses<B>(&self, request: &Request<B>) -> Option<(u16, String)> {
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let access_key = header.split_once("Credential=").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        let (_, key) = request.uri().path().trim_start_matches('/').split_once('/').unwrap_or_default();
        let action = action(request.method(), key, request.uri().query().unwrap_or_default());
        let state = &mut *self.0.lock().unwrap();
        let is_denied = state.roles.iter().any(|role| role.access_key == access_key && !role.allows(action, key));
        let refusal = match &mut state.expiring {
            Some((expiring, 0)) if *expiring == access_key => Some("ExpiredToken"),
            Some((expiring, left)) if *expiring == access_key => {
                *left -= 1;
                None
            }
            _ => None,
        };
        let refusal = refusal.or(is_denied.then_some("AccessDenied"));
        let (method, is_refused) = (request.method().clone(), refusal.is_some());
        state.log.push(Asked { access_key: access_key.to_owned(), method, action, key: key.to_owned(), is_refused });
        refusal.map(|code| (403, code.to_owned()))
    }
}

/// Returns the action that S3 checks for a request (Amazon S3 user guide, "Required permissions for Amazon S3 API operations").
fn action(method: &Method, key: &str, query: &str) -> &'static str {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match (method.as_str(), key) {
        ("GET", "") if has("lifecycle") => "s3:GetLifecycleConfiguration",
        ("GET", "") if has("uploads") => "s3:ListBucketMultipartUploads",
        ("GET" | "HEAD", "") => "s3:ListBucket",
        ("GET" | "HEAD", _) => "s3:GetObject",
        ("POST", "") if has("delete") => "s3:DeleteObject",
        ("PUT" | "POST", _) => "s3:PutObject",
        ("DELETE", _) if has("uploadId") => "s3:AbortMultipartUpload",
        ("DELETE", _) => "s3:DeleteObject",
        _ => "s3:Unknown",
    }
}

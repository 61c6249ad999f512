//! A small ECR in this process: its API in JSON, and its registry, which forwards to a real open registry.
//!
//! The host in references is an ECR name. The client finds this server by AWS_ENDPOINT_URL_ECR and by `proxyEndpoint`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::http_fake::{Answer, Say, Server, answer, body, forward, refusal, serve};
use super::parts::part;

pub const ACCOUNT: &str = "123456789012";
pub const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// A repository of this ECR.
#[derive(Debug, Clone, Default)]
pub struct FakeRepository {
    pub immutable: bool,
    pub lifecycle_policy: Option<String>,
    /// The CreateRepository call that created it.
    pub made_with: Value,
}

struct State {
    upstream: String,
    prefix: String,
    own: Mutex<String>,
    repositories: Mutex<HashMap<String, FakeRepository>>,
    tokens: Mutex<HashMap<String, Instant>>,
    /// The real lifetime of a token, and the lifetime in the response.
    life: Mutex<(Duration, Duration)>,
    calls: Mutex<Vec<String>>,
    denied: Mutex<Vec<String>>,
    logins: AtomicUsize,
    /// After this many logins, the next ones are denied.
    most_logins: AtomicUsize,
    /// What happens at the first request of a method for a path that contains this text.
    event: Mutex<Option<(&'static str, &'static str, Event)>>,
    signed_by: Mutex<String>,
}

/// What happens at a request to the registry.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// All issued tokens expire, also for this request.
    TokensExpire,
    /// The request waits this long.
    Pause(Duration),
}

/// The server. It stops when this value is dropped.
pub struct EcrFake {
    state: Arc<State>,
    server: Server,
}

impl EcrFake {
    /// Starts an ECR without repositories. Its blobs are in the open test registry, under a unique prefix.
    pub async fn start() -> Self {
        Self::before(part("HAKOBI_TEST_REGISTRY_OPEN")).await
    }

    /// Starts an ECR without repositories. Its blobs are in this open registry (`host:port`), under a unique prefix.
    pub async fn before(upstream: String) -> Self {
        // The client to the real registry needs a crypto provider, although it uses plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hours = Duration::from_secs(12 * 3600);
        let state = Arc::new(State {
            upstream,
            prefix: format!("ecr-{:012x}/", rand::random::<u64>() >> 16),
            own: Mutex::default(),
            repositories: Mutex::default(),
            tokens: Mutex::default(),
            life: Mutex::new((hours, hours)),
            calls: Mutex::default(),
            denied: Mutex::default(),
            logins: AtomicUsize::new(0),
            most_logins: AtomicUsize::new(usize::MAX),
            event: Mutex::default(),
            signed_by: Mutex::default(),
        });
        let served = Arc::clone(&state);
        let server = serve(move |request| {
            let state = Arc::clone(&served);
            Box::pin(async move { state.serve(request).await })
        })
        .await;
        *state.own.lock().unwrap() = server.address.to_string();
        Self { state, server }
    }

    /// Returns the value of AWS_ENDPOINT_URL_ECR.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Returns the variables with which a child process finds this ECR.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL_ECR", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", "AKIAFAKE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "fake".to_owned()),
            ("AWS_ENDPOINT_URL_STS", self.endpoint()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Creates a repository without a client's call.
    pub fn add(&self, path: &str, immutable: bool) {
        let repository = FakeRepository { immutable, ..FakeRepository::default() };
        self.state.repositories.lock().unwrap().insert(path.to_owned(), repository);
    }

    pub fn repository(&self, path: &str) -> Option<FakeRepository> {
        self.state.repositories.lock().unwrap().get(path).cloned()
    }

    /// Returns the number of issued tokens.
    pub fn logins(&self) -> usize {
        self.state.logins.load(Ordering::SeqCst)
    }

    /// Denies each login after this many.
    pub fn deny_logins_after(&self, count: usize) {
        self.state.most_logins.store(count, Ordering::SeqCst);
    }

    /// Sets what happens at the first request of a method for a path that contains this text.
    pub fn at(&self, method: &'static str, path: &'static str, event: Event) {
        *self.state.event.lock().unwrap() = Some((method, path, event));
    }

    /// Returns the path of a repository in the registry that has the blobs.
    pub fn upstream_path(&self, path: &str) -> String {
        format!("{}{path}", self.state.prefix)
    }

    /// Sets the real lifetime of new tokens, and the lifetime in the response.
    pub fn tokens_live(&self, works: Duration, said: Duration) {
        *self.state.life.lock().unwrap() = (works, said);
    }

    /// Expires all issued tokens.
    pub fn expire_tokens(&self) {
        self.state.tokens.lock().unwrap().values_mut().for_each(|until| *until = Instant::now());
    }

    /// Returns the names of all calls of the API so far.
    pub fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap().clone()
    }

    /// Returns the access key that signed the last call.
    pub fn signed_by(&self) -> String {
        self.state.signed_by.lock().unwrap().clone()
    }

    /// Denies this call from now on.
    pub fn deny(&self, call: &str) {
        self.state.denied.lock().unwrap().push(call.to_owned());
    }
}

impl State {
    async fn serve(&self, request: Request<Incoming>) -> Say {
        let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).map(str::to_owned);
        match target {
            Some(target) => {
                let call = target.rsplit('.').next().unwrap_or_default().to_owned();
                let signed = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
                let key = signed.split("Credential=").nth(1).and_then(|text| text.split('/').next()).unwrap_or_default();
                *self.signed_by.lock().unwrap() = key.to_owned();
                let input = serde_json::from_slice(&body(request).await).unwrap_or_default();
                Say::This(self.control(&call, &input).await)
            }
            None if request.uri().path() == "/" => Say::This(self.assume_role(&body(request).await)),
            None => self.data(request).await,
        }
    }

    async fn control(&self, call: &str, input: &Value) -> Answer {
        self.calls.lock().unwrap().push(call.to_owned());
        let no_login =
            call == "GetAuthorizationToken" && self.logins.load(Ordering::SeqCst) >= self.most_logins.load(Ordering::SeqCst);
        if no_login || self.denied.lock().unwrap().iter().any(|denied| denied == call) {
            return aws_error(
                "AccessDeniedException",
                &format!("User: arn:aws:iam::{ACCOUNT}:user/x is not authorized to perform: ecr:{call}"),
            );
        }
        let name = input["repositoryName"].as_str().unwrap_or_default().to_owned();
        match call {
            "GetAuthorizationToken" => self.login(),
            "DescribeRepositories" => {
                let name = input["repositoryNames"][0].as_str().unwrap_or_default();
                match self.repositories.lock().unwrap().get(name) {
                    Some(repository) => aws(&json!({ "repositories": [describe(name, repository)] })),
                    None => missing(name),
                }
            }
            "CreateRepository" => {
                let immutable = input["imageTagMutability"] == "IMMUTABLE";
                let made = FakeRepository { immutable, lifecycle_policy: None, made_with: input.clone() };
                let mut repositories = self.repositories.lock().unwrap();
                if repositories.contains_key(&name) {
                    return aws_error(
                        "RepositoryAlreadyExistsException",
                        &format!("The repository with name '{name}' already exists"),
                    );
                }
                let answer = aws(&json!({ "repository": describe(&name, &made) }));
                repositories.insert(name, made);
                answer
            }
            "PutLifecyclePolicy" => match self.repositories.lock().unwrap().get_mut(&name) {
                Some(repository) => {
                    repository.lifecycle_policy = input["lifecyclePolicyText"].as_str().map(str::to_owned);
                    aws(
                        &json!({ "registryId": ACCOUNT, "repositoryName": name, "lifecyclePolicyText": input["lifecyclePolicyText"] }),
                    )
                }
                None => missing(&name),
            },
            "BatchCheckLayerAvailability" => self.layers(&name, input).await,
            "BatchGetImage" => self.get_images(&name, input).await,
            "PutImage" => self.put_image(&name, input).await,
            _ => aws_error("InvalidAction", call),
        }
    }

    /// Answers STS, whose protocol is a form and XML.
    fn assume_role(&self, form: &[u8]) -> Answer {
        let form = String::from_utf8_lossy(form).into_owned();
        let role = form.split('&').find_map(|pair| pair.strip_prefix("RoleArn=")).unwrap_or_default();
        self.calls.lock().unwrap().push(format!("AssumeRole {}", role.replace("%3A", ":").replace("%2F", "/")));
        let xml = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
            <Arn>arn:aws:sts::1:assumed-role/r/hakobi</Arn><AssumedRoleId>AROA:hakobi</AssumedRoleId></AssumedRoleUser><Credentials>\
            <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
            <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";
        answer(200, &[("content-type", "text/xml")], xml)
    }

    fn login(&self) -> Answer {
        self.logins.fetch_add(1, Ordering::SeqCst);
        let token = format!("{:032x}", rand::random::<u128>());
        let (works, said) = *self.life.lock().unwrap();
        self.tokens.lock().unwrap().insert(token.clone(), Instant::now() + works);
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + said;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("AWS:{token}"));
        let endpoint = format!("http://{}", self.own.lock().unwrap());
        aws(
            &json!({ "authorizationData": [{ "authorizationToken": encoded, "expiresAt": expires.as_secs_f64(), "proxyEndpoint": endpoint }] }),
        )
    }

    async fn layers(&self, name: &str, input: &Value) -> Answer {
        if !self.repositories.lock().unwrap().contains_key(name) {
            return missing(name);
        }
        let digests: Vec<&str> = input["layerDigests"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if digests.is_empty() || digests.len() > 100 {
            return aws_error("InvalidParameterException", "Invalid parameter at 'layerDigests' failed to satisfy constraint");
        }
        let mut layers = Vec::new();
        let mut failures = Vec::new();
        for digest in digests {
            let answer = self.upstream("HEAD", name, &format!("blobs/{digest}"), None).await;
            if answer.status().is_success() {
                let size: u64 = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
                layers.push(json!({ "layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": size }));
            } else {
                failures.push(json!({ "layerDigest": digest, "failureCode": "MissingLayerDigest", "failureReason": "absent" }));
            }
        }
        aws(&json!({ "layers": layers, "failures": failures }))
    }

    async fn get_images(&self, name: &str, input: &Value) -> Answer {
        let mut images = Vec::new();
        let mut failures = Vec::new();
        for id in input["imageIds"].as_array().into_iter().flatten() {
            let reference = id["imageDigest"].as_str().or(id["imageTag"].as_str()).unwrap_or("latest");
            let answer = self.upstream("GET", name, &format!("manifests/{reference}"), None).await;
            if answer.status().is_success() {
                let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
                let (digest, media_type) = (header("docker-content-digest"), header("content-type"));
                let id = json!({ "imageDigest": digest, "imageTag": id["imageTag"] });
                let manifest = answer.text().await.unwrap_or_default();
                images.push(json!({ "registryId": ACCOUNT, "repositoryName": name, "imageId": id, "imageManifest": manifest, "imageManifestMediaType": media_type }));
            } else {
                failures
                    .push(json!({ "imageId": id, "failureCode": "ImageNotFound", "failureReason": "Requested image not found" }));
            }
        }
        aws(&json!({ "images": images, "failures": failures }))
    }

    async fn put_image(&self, name: &str, input: &Value) -> Answer {
        let tag = input["imageTag"].as_str().unwrap_or_default();
        let manifest = input["imageManifest"].as_str().unwrap_or_default().to_owned();
        let immutable = self.repositories.lock().unwrap().get(name).is_some_and(|repository| repository.immutable);
        if immutable && self.upstream("HEAD", name, &format!("manifests/{tag}"), None).await.status().is_success() {
            return aws_error("ImageTagAlreadyExistsException", &immutable_words(tag, name));
        }
        let media_type =
            input["imageManifestMediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json").to_owned();
        let answer = self.upstream("PUT", name, &format!("manifests/{tag}"), Some((media_type, manifest))).await;
        if !answer.status().is_success() {
            return aws_error("LayersNotFoundException", "layers are missing");
        }
        aws(&json!({ "image": { "registryId": ACCOUNT, "repositoryName": name, "imageId": { "imageTag": tag } } }))
    }

    async fn upstream(&self, method: &str, name: &str, rest: &str, body: Option<(String, String)>) -> reqwest::Response {
        let url = format!("http://{}/v2/{}{name}/{rest}", self.upstream, self.prefix);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client
            .request(method.parse().unwrap(), url)
            .header("accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
            .header(
                "accept",
                "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json",
            );
        if let Some((media_type, body)) = body {
            request = request.header("content-type", media_type).body(body);
        }
        request.send().await.expect("the test registry")
    }

    async fn data(&self, request: Request<Incoming>) -> Say {
        let is_due = |event: &mut (&str, &str, Event)| request.method() == event.0 && request.uri().path().contains(event.1);
        let event = self.event.lock().unwrap().take_if(|event| is_due(event));
        match event {
            Some((_, _, Event::TokensExpire)) => {
                self.tokens.lock().unwrap().values_mut().for_each(|until| *until = Instant::now());
            }
            Some((_, _, Event::Pause(time))) => tokio::time::sleep(time).await,
            None => {}
        }
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = authorization
            .strip_prefix("Basic ")
            .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
            .and_then(|text| String::from_utf8(text).ok())
            .and_then(|text| text.strip_prefix("AWS:").map(str::to_owned));
        let until = token.and_then(|token| self.tokens.lock().unwrap().get(&token).copied());
        match until {
            None => {
                let mut no = refusal(401, "UNAUTHORIZED", "authentication required");
                no.headers_mut().insert("www-authenticate", "Basic realm=\"ecr\",service=\"ecr.amazonaws.com\"".parse().unwrap());
                return Say::This(no);
            }
            Some(until) if until <= Instant::now() => {
                return Say::This(refusal(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again."));
            }
            Some(_) => {}
        }
        let path = request.uri().path().to_owned();
        if path != "/v2/" {
            let rest = path.strip_prefix("/v2/").unwrap_or_default();
            let name =
                ["/blobs/", "/manifests/", "/tags/"].iter().find_map(|part| rest.split_once(part)).map_or(rest, |(name, _)| name);
            let Some(repository) = self.repositories.lock().unwrap().get(name).cloned() else {
                let words = format!("The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'");
                return Say::This(refusal(404, "NAME_UNKNOWN", &words));
            };
            if let (true, "PUT", Some((_, tag))) =
                (repository.immutable, request.method().as_str(), rest.split_once("/manifests/"))
                && !tag.contains(':')
                && self.upstream("HEAD", name, &format!("manifests/{tag}"), None).await.status().is_success()
            {
                return Say::This(refusal(400, "TAG_INVALID", &immutable_words(tag, name)));
            }
        }
        let own = self.own.lock().unwrap().clone();
        forward(request, &self.upstream, &own, &self.prefix, None).await
    }
}

fn immutable_words(tag: &str, name: &str) -> String {
    format!(
        "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the tag is immutable."
    )
}

fn describe(name: &str, repository: &FakeRepository) -> Value {
    json!({
        "repositoryArn": format!("arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/{name}"),
        "registryId": ACCOUNT,
        "repositoryName": name,
        "repositoryUri": format!("{HOST}/{name}"),
        "imageTagMutability": if repository.immutable { "IMMUTABLE" } else { "MUTABLE" },
    })
}

fn aws(value: &Value) -> Answer {
    answer(200, &[("content-type", "application/x-amz-json-1.1")], value.to_string())
}

fn aws_error(code: &str, message: &str) -> Answer {
    answer(400, &[("content-type", "application/x-amz-json-1.1")], json!({ "__type": code, "message": message }).to_string())
}

fn missing(name: &str) -> Answer {
    let words = format!("The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'");
    aws_error("RepositoryNotFoundException", &words)
}

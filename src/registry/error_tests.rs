//! Snapshots of the registry's errors with their hints. A small server gives the answers that cause them.

use std::time::Duration;

use reqwest::Response;

use super::error::{Error, Kind};
use super::reply::Reply;
use super::testing::{answer, nobody, refusal, serve};
use super::{AwsSource, Client, Options, Patience, Registries};
use crate::domain::{Digest, ImageRef, RawManifest, RegistryHost, Repository, media_type};
use crate::error::{self as user, shown};
use crate::event::Events;
use crate::settings::{CreateRepository, RegistrySettings};

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app";

/// The repositories whose registries get different hints: ECR, GHCR, Docker Hub, a registry of one's own.
const REPOSITORIES: [&str; 4] = [ECR, "ghcr.io/team/app", "team/app", "registry.example:5000/team/app"];

fn repository(text: &str) -> Repository {
    text.parse::<ImageRef>().expect("a reference").repository
}

/// Returns the error with its hint as a command prints it.
fn told(error: Error) -> String {
    let error = user::Error::from(error);
    shown(&error, error.hint_text())
}

fn registries(aws: AwsSource, settings: &RegistrySettings) -> Registries {
    // A single attempt.
    let patience = Patience { total: Duration::ZERO, ..Patience::default() };
    Registries::with(settings, Events::none(), Options { patience, aws })
}

fn client(address: &str) -> Client {
    registries(AwsSource::default(), &RegistrySettings::default()).repository(&repository(&format!("{address}/team/app")))
}

/// Returns a registry's answer as hakobi reads it.
async fn refused(status: u16, body: &str, what: &str, action: &'static str, place: &str) -> Error {
    let response = http::Response::builder().status(status).body(body.to_owned()).expect("an answer");
    match Reply::from_response(Response::from(response)).await {
        Reply::Refused(refusal) => refusal.error(what, &repository(place)).needs(action),
        Reply::Ok(_) => panic!("{status} is no refusal"),
    }
}

#[tokio::test]
async fn refusals() {
    let json = |code: &str, message: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    let immutable =
        "The image tag 'v1' already exists in the 'team/app' repository and cannot be overwritten because the tag is immutable.";
    let (push, read, upload) = ("push the manifest v1", "read the manifest v1", "upload the blob sha256:ab");
    let mut out = String::new();
    for place in REPOSITORIES {
        for (status, body, what, action) in [
            (401, json("UNAUTHORIZED", "authentication required"), read, "ecr:BatchGetImage"),
            (403, json("DENIED", "requested access to the resource is denied"), push, "ecr:PutImage"),
            (404, json("NAME_UNKNOWN", "repository name not known to registry"), upload, "ecr:InitiateLayerUpload"),
            (400, json("TAG_INVALID", immutable), push, "ecr:PutImage"),
        ] {
            out.push_str(&told(refused(status, &body, what, action, place).await));
        }
    }
    // The others have no hint, whatever the registry.
    for (status, body, what) in [
        (404, json("BLOB_UNKNOWN", "blob unknown to registry"), "read the blob sha256:ab"),
        (400, json("MANIFEST_INVALID", "manifest invalid"), push),
        (413, "<html>Request Entity Too Large</html>".to_owned(), upload),
        (429, json("TOOMANYREQUESTS", "You have reached your pull rate limit."), read),
        (503, "upstream connect error\nreset".to_owned(), upload),
        (500, String::new(), upload),
    ] {
        out.push_str(&told(refused(status, &body, what, "", "ghcr.io/team/app").await));
    }
    insta::assert_snapshot!("refusals", out);
}

#[tokio::test]
async fn wrong_answers() {
    let other = Digest::hash(b"other");
    let stored = format!("docker-content-digest: {other}\r\n");
    let address = serve(move |head| match head.split(' ').nth(1).unwrap_or_default() {
        "/v2/" => answer("200 OK", "", ""),
        "/v2/team/app/manifests/text" => answer("200 OK", "", "x"),
        "/v2/team/app/manifests/old" => answer("200 OK", "", r#"{"schemaVersion":1}"#),
        "/v2/team/app/manifests/large" => answer("200 OK", "", &"x".repeat(5 << 20)),
        "/v2/team/app/manifests/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_owned(),
        "/v2/team/app/manifests/pushed" => answer("201 Created", &stored, ""),
        "/v2/team/app/manifests/other" => answer("200 OK", &stored, "{}"),
        "/v2/team/app/tags/list?n=1000" => answer("200 OK", "", "x"),
        "/v2/team/app/blobs/uploads/" => answer("202 Accepted", "", ""),
        path if path.ends_with("loop") => answer("307 Temporary Redirect", &format!("location: {path}\r\n"), ""),
        path if path.contains("/blobs/") => answer("200 OK", "", "other bytes"),
        path => refusal("404 Not Found", "MANIFEST_UNKNOWN", path),
    })
    .await;
    let client = client(&address);
    let mut out = String::new();
    for reference in ["text", "old", "large", "cut", "other", "loop"] {
        out.push_str(&told(client.manifest(reference).await.expect_err("refused")));
    }
    let manifest = RawManifest { media_type: media_type::OCI_MANIFEST.to_owned(), bytes: "{}".into() };
    out.push_str(&told(client.put_manifest(&manifest, "pushed").await.expect_err("refused")));
    out.push_str(&told(client.tags().await.expect_err("refused")));
    out.push_str(&told(client.push_access(None).await.expect_err("refused")));
    let blob = Digest::hash(b"blob");
    out.push_str(&told(client.read_blob(&blob, 100).await.expect_err("damaged")));
    out.push_str(&told(client.read_blob(&blob, 5).await.expect_err("too large")));
    insta::assert_snapshot!("wrong-answers", out.replace(&address, "127.0.0.1:PORT"));
}

#[tokio::test]
async fn connections() {
    let (nobody, plain) = (nobody().await, serve(|_| answer("200 OK", "", "")).await);
    let mut out = told(client(&nobody).manifest("v1").await.expect_err("unreachable"));
    // TLS to a server without it.
    for place in REPOSITORIES {
        let host = repository(place).host;
        let shared = registries(AwsSource::default(), &RegistrySettings::default());
        let tls = shared.shared().http.client(super::http::Trust::Loopback).expect("a client");
        let error = tls.get(format!("https://{plain}/v2/")).send().await.expect_err("no TLS");
        out.push_str(&told(super::start::network(&error, "reach the registry", &host)));
    }
    let broken = Error::at(Kind::Network, "upload the blob sha256:ab", &repository(ECR)).because("the connection stalled");
    out.push_str(&told(broken.clone().tried(3, Duration::from_secs(12))));
    out.push_str(&told(broken.silent(7, Duration::from_secs(180))));
    out.push_str(&told(Error::at(Kind::Source, "upload the blob sha256:ab", &repository(ECR)).because("it ended early")));
    out.push_str(&told(Error::internal("an upload ended because of a bug in hakobi")));
    let invalid = Repository { host: RegistryHost::new("host:x"), path: "app".to_owned() };
    let client = registries(AwsSource::default(), &RegistrySettings::default()).repository(&invalid);
    out.push_str(&told(client.manifest("v1").await.expect_err("no host")));
    insta::assert_snapshot!("connections", out.replace(&nobody, "127.0.0.1:PORT"));
}

#[tokio::test]
async fn token_services() {
    let address = serve(|head| match head.split(['?', ' ']).nth(1).unwrap_or_default() {
        "/denied" => answer("401 Unauthorized", "", "password p"),
        "/busy" => answer("429 Too Many Requests", "", ""),
        "/down" => answer("503 Service Unavailable", "", ""),
        "/page" => answer("200 OK", "", "<html>"),
        "/empty" => answer("200 OK", "", "{}"),
        "/long" => answer("200 OK", "", &"x".repeat(2 << 20)),
        "/loop" => answer("307 Temporary Redirect", "location: /loop\r\n", ""),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_owned(),
    })
    .await;
    let mut out = String::new();
    let registries = registries(AwsSource::default(), &RegistrySettings::default());
    for place in ["ghcr.io/team/app", "team/app"] {
        let host = registries.host(&repository(place).host);
        let at = |path: &str| format!("http://{address}/{path}");
        for realm in [at("denied"), "no URL".to_owned()] {
            out.push_str(&told(host.token(&realm, "s", &[], None).await.expect_err("no token")));
        }
    }
    let host = registries.host(&RegistryHost::new("ghcr.io"));
    for path in ["busy", "down", "page", "empty", "long", "loop", "cut"] {
        out.push_str(&told(host.token(&format!("http://{address}/{path}"), "s", &[], None).await.expect_err("no token")));
    }
    let login = super::Credential::Basic { username: "u".to_owned(), password: "p".to_owned() };
    out.push_str(&told(host.token("http://tokens.example/", "s", &[], Some(&login)).await.expect_err("no token")));
    insta::assert_snapshot!("token-services", out);
}

#[tokio::test]
async fn credentials() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = RegistrySettings { docker_config: Some(directory.path().to_owned()), ..RegistrySettings::default() };
    let mut out = String::new();
    for (config, host) in [
        ("{", "ghcr.io"),
        (r#"{"auths":{"ghcr.io":{"auth":"!"}}}"#, "ghcr.io"),
        (r#"{"auths":{"https://index.docker.io/v1/":{"auth":"eA=="}}}"#, "docker.io"),
        (r#"{"credHelpers":{"ghcr.io":"hakobi-missing"}}"#, "ghcr.io"),
        (r#"{"credsStore":"../x"}"#, "ghcr.io"),
    ] {
        std::fs::write(directory.path().join("config.json"), config).expect("written");
        let config = super::credentials::DockerConfig::load(settings.docker_config.as_deref());
        let error = match config {
            Ok(config) => config.lookup(&RegistryHost::new(host)).await.expect_err("no login"),
            Err(error) => error,
        };
        out.push_str(&told(error));
    }
    insta::assert_snapshot!("credentials", out.replace(&*directory.path().to_string_lossy(), "DIR"));
}

#[tokio::test]
async fn ecr() {
    let refuse =
        |code: &str, message: &str| answer("400 Bad Request", "", &format!(r#"{{"__type":"{code}","message":"{message}"}}"#));
    let token = |head: &str, token: &str| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let data = format!(r#"{{"authorizationToken":"{token}","proxyEndpoint":"http://{host}"}}"#);
        answer("200 OK", "", &format!(r#"{{"authorizationData":[{data}]}}"#))
    };
    // The access key says how the server answers.
    let address = serve(move |head| {
        let calls = |name: &str| head.contains(&format!(".{name}\r\n"));
        let is_for = |name: &str| head.contains(&format!("Credential={name}/"));
        if calls("GetAuthorizationToken") {
            return match () {
                () if is_for("denied") => refuse("AccessDeniedException", "User: arn:aws:iam::1:role/ci is not authorized"),
                () if is_for("expired") => {
                    refuse("ExpiredTokenException", "The security token included in the request is expired")
                }
                () if is_for("odd") => refuse("InvalidParameterException", "Invalid parameter"),
                () if is_for("none") => answer("200 OK", "", r#"{"authorizationData":[]}"#),
                () if is_for("plain") => token(head, "!"),
                () if is_for("nameless") => token(head, "eA=="),
                () => token(head, "QVdTOnA="),
            };
        }
        if calls("DescribeRepositories") {
            return refuse("RepositoryNotFoundException", "The repository does not exist");
        }
        refuse("AccessDeniedException", "User: arn:aws:iam::1:role/ci is not authorized to perform: ecr:CreateRepository")
    })
    .await;
    let access = async |key: &str, create: Option<&CreateRepository>| {
        let aws =
            AwsSource::Fixed { endpoint: format!("http://{address}"), access_key: key.to_owned(), secret_key: "s".to_owned() };
        let client = registries(aws, &RegistrySettings::default()).repository(&repository(ECR));
        told(client.push_access(create).await.expect_err("refused"))
    };
    let mut out = String::new();
    for key in ["denied", "expired", "odd", "none", "plain", "nameless", "valid"] {
        out.push_str(&access(key, None).await);
    }
    out.push_str(&access("valid", Some(&CreateRepository::default())).await);
    insta::assert_snapshot!("ecr", out);
}

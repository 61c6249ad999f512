//! Snapshots of the reasons why a remote file or repository has no version. A small server gives the answers that cause them.

use super::Client;
use super::git::chosen;
use crate::registry::testing::{answer, nobody, serve};

#[tokio::test]
async fn files() {
    let address = serve(|head| match head.split(' ').nth(1).unwrap_or_default() {
        "/missing" => answer("404 Not Found", "", ""),
        "/loop" => answer("302 Found", "location: /loop\r\n", ""),
        "/packed" => answer("200 OK", "content-encoding: gzip\r\n", "no gzip at all"),
        "/short" => answer("200 OK", "content-encoding: gzip\r\n", ""),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_owned(),
    })
    .await;
    let client = Client::new().expect("a client");
    let mut urls: Vec<String> =
        ["missing", "loop", "packed", "short", "cut"].iter().map(|path| format!("http://{address}/{path}")).collect();
    urls.extend([format!("http://{}/", nobody().await), "no URL".to_owned()]);
    let mut out = String::new();
    for url in urls {
        let error = client.file(&url, None).await.expect_err("no version");
        out.push_str(&format!("{error}\n"));
    }
    insta::assert_snapshot!("files", out);
}

#[test]
fn repositories() {
    let commit = "a".repeat(40);
    let both = format!("{commit}\trefs/heads/both\n{}\trefs/tags/both\n", "b".repeat(40));
    let mut out = String::new();
    for (listed, reference) in [("", ""), ("", "main"), (&*both, "both"), ("x\trefs/heads/main\n", "main")] {
        out.push_str(&format!("{}\n", chosen(listed, reference).expect_err("no commit")));
    }
    insta::assert_snapshot!("repositories", out);
}

//! Seeds of HTTP: requests to the endpoint, and answers of registries.

use serde_json::json;

use super::{Seed, seed, texts::digest};

pub fn seeds() -> Vec<Seed> {
    [requests(), answers()].concat()
}

fn requests() -> Vec<Seed> {
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let image = "/v2/SECRET/image";
    let put = format!("PUT {image}/blobs/uploads/UPLOAD?digest={}", digest("content"));
    let manifest = json!({"schemaVersion": 2, "config": {"digest": digest("c"), "size": 1}, "layers": []}).to_string();
    let put_manifest = head(&format!("PUT {image}/manifests/v1"), &format!("content-length: {}\r\n", manifest.len())) + &manifest;
    let request = |name: &str, text: String| seed("endpoint", name, text);
    vec![
        request("ping", head("GET /v2/", "")),
        request("pull", head("GET /v2/SECRET/0/app/manifests/latest", "accept: */*\r\n")),
        request("blob", head(&format!("GET /v2/SECRET/0/app/blobs/{}", digest("layer")), "range: bytes=1-3\r\n")),
        request(
            "blob-range",
            head(&format!("GET /v2/SECRET/0/app/blobs/{}", digest("layer")), "range: bytes=-18446744073709551615\r\n"),
        ),
        request("blob-private", head(&format!("GET /v2/SECRET/0/app/blobs/{}", digest("a blob of another scope")), "")),
        request("no-secret", head("GET /v2/wrong/0/app/manifests/latest", "")),
        request("above", head("GET /v2/SECRET/0/app/blobs/../../../manifests/%2e%2e%2f", "")),
        request("begin", head(&format!("POST {image}/blobs/uploads/?mount={}&from=a", digest("known")), "content-length: 0\r\n")),
        request(
            "append",
            head(&format!("PATCH {image}/blobs/uploads/UPLOAD"), "content-range: 0-6\r\ncontent-length: 7\r\n") + "content",
        ),
        request(
            "append-chunked",
            head(&format!("PATCH {image}/blobs/uploads/UPLOAD"), "transfer-encoding: chunked\r\n") + "7\r\ncontent\r\n0\r\n\r\n",
        ),
        request(
            "append-beyond",
            head(
                &format!("PATCH {image}/blobs/uploads/UPLOAD"),
                "content-range: 18446744073709551615-1\r\ncontent-length: 1\r\n",
            ) + "x",
        ),
        request("finish", head(&put, "content-length: 7\r\n") + "content"),
        request("finish-wrong", head(&put, "content-length: 5\r\n") + "wrong"),
        request(
            "progress",
            head(&format!("GET {image}/blobs/uploads/UPLOAD"), "") + &head(&format!("DELETE {image}/blobs/uploads/UPLOAD"), ""),
        ),
        request("manifest", put_manifest),
        request(
            "smuggled",
            head(&format!("PUT {image}/manifests/v1"), "content-length: 5\r\ntransfer-encoding: chunked\r\n")
                + "0\r\n\r\nGET /v2/ HTTP/1.1\r\n\r\n",
        ),
        request("http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned()),
        request("long-header", head("GET /v2/", &format!("x: {}\r\n", "y".repeat(20_000)))),
        request("tls", "\x16\x03\x01\x02\0\x01\0\x01".to_owned()),
    ]
}

fn answers() -> Vec<Seed> {
    let told = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
    };
    let ping = told("200 OK", "", "");
    let bearer = "www-authenticate: Bearer realm=\"http://HOST/token\",service=\"x\"\r\n";
    let login = [told("401 Unauthorized", bearer, ""), told("200 OK", "", r#"{"token":"t","expires_in":18446744073709551615}"#)]
        .join("\n--\n");
    let answer =
        |name: &str, operation: char, parts: &[String]| seed("registry", name, format!("{operation}{}", parts.join("\n--\n")));
    let manifest = json!({"schemaVersion": 2, "config": {"digest": digest("c"), "size": 1}, "layers": []}).to_string();
    let typed = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
    let error = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"x","detail":"y"}]}"#;
    let token = r#"{"authorizationData":[{"authorizationToken":"QVdTOnB3","expiresAt":1e308,"proxyEndpoint":"http://HOST"}]}"#;
    let json = "content-type: application/x-amz-json-1.1\r\n";
    let page = "link: </v2/app/tags/list?last=x>; rel=\"next\"\r\n";
    vec![
        answer("manifest", 'm', &[ping.clone(), told("200 OK", typed, &manifest)]),
        answer("manifest-login", 'm', &[login.clone(), told("200 OK", typed, &manifest)]),
        answer(
            "manifest-endless",
            'm',
            &[ping.clone(), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned()],
        ),
        answer(
            "manifest-huge",
            'm',
            &[ping.clone(), "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n{".to_owned()],
        ),
        answer(
            "digest",
            'd',
            &[ping.clone(), told("200 OK", &format!("docker-content-digest: {}\r\n", digest("content")), "content")],
        ),
        answer("digest-wrong", 'd', &[ping.clone(), told("200 OK", typed, "{}")]),
        answer("head", 'h', &[ping.clone(), told("200 OK", &format!("{typed}docker-content-digest: {}\r\n", digest("x")), "")]),
        answer("size", 's', &[ping.clone(), "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n".to_owned()]),
        answer("blob", 'b', &[ping.clone(), told("200 OK", "", "content")]),
        answer("blob-wrong", 'b', &[ping.clone(), told("200 OK", "", "another")]),
        answer(
            "blob-cut",
            'b',
            &[
                ping.clone(),
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ncon".to_owned(),
                told("206 Partial Content", "content-range: bytes 3-6/7\r\n", "tent"),
            ],
        ),
        answer(
            "blob-range",
            'b',
            &[
                ping.clone(),
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ncon".to_owned(),
                told("206 Partial Content", "content-range: bytes 18446744073709551615-0/*\r\n", "tent"),
            ],
        ),
        answer(
            "blob-huge-rest",
            'b',
            &[
                ping.clone(),
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ncon\r\n".to_owned(),
                "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 3-6/7\r\ncontent-length: 18446744073709551613\r\n\r\ntent"
                    .to_owned(),
            ],
        ),
        answer("tags", 't', &[ping.clone(), told("200 OK", "", r#"{"name":"app","tags":["v1",null]}"#)]),
        answer("tags-endless", 't', &[ping.clone(), told("200 OK", page, r#"{"tags":["v1"]}"#)]),
        answer(
            "access",
            'a',
            &[
                ping.clone(),
                told("202 Accepted", "location: /v2/app/blobs/uploads/1?state=x\r\n", ""),
                told("204 No Content", "", ""),
            ],
        ),
        answer("redirects", 'b', &[ping.clone(), told("307 Temporary Redirect", "location: /v2/app/again\r\n", "")]),
        answer("put", 'p', &[ping.clone(), told("400 Bad Request", "", error)]),
        answer("put-early", 'p', &[ping.clone(), told("404 Not Found", "", &error.replace("NAME", "BLOB"))]),
        answer(
            "upload",
            'u',
            &[
                ping.clone(),
                told("404 Not Found", "", ""),
                told("202 Accepted", "location: http://HOST/up?a\r\nrange: 0-18446744073709551615\r\n", ""),
                told("201 Created", "", ""),
            ],
        ),
        answer("busy", 's', &[ping.clone(), told("429 Too Many Requests", "retry-after: 18446744073709551615\r\n", "")]),
        answer("login", 'l', &[login]),
        answer("login-basic", 'l', &[told("401 Unauthorized", "www-authenticate: Basic realm=\"\\\", , =\r\n", "<html>")]),
        answer("token-deep", 'l', &[told("401 Unauthorized", bearer, ""), told("200 OK", "", &"[".repeat(5000))]),
        answer("ecr", 'e', &[told("200 OK", json, token)]),
        answer("ecr-no-text", 'e', &[told("200 OK", json, &token.replace("QVdTOnB3", "////"))]),
        answer("ecr-negative", 'e', &[told("200 OK", json, &token.replace("1e308", "-1e308"))]),
        answer("nothing", 'm', &[String::new()]),
    ]
}

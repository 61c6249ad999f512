//! Lists the tags of a repository (distribution-spec, "Listing tags").

use reqwest::Url;
use reqwest::header::LINK;
use serde::Deserialize;

use super::auth::Scope;
use super::client::Client;
use super::error::{Error, Kind, Result};
use super::manifest::{header, small_body};
use super::reply::Reply;

/// The maximum size of a page, in bytes.
const LARGEST: usize = 4 << 20;

/// The number of tags per page, and the maximum number of pages, in case a registry's list never ends.
const PAGE: usize = 1000;
const PAGES: usize = 100;

#[derive(Deserialize)]
struct Page {
    /// Some registries send `null` for an empty list.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// Returns all tags of the repository, in the registry's order. The list is empty if the repository does not exist.
    ///
    /// # Errors
    /// If the registry refuses or is unreachable.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let what = "list tags";
        let (host, scope) = (&*self.host, Scope::pull(&self.repository.path));
        let limit = host.shared.patience.stall;
        let mut url = host.url(&format!("{}/tags/list?n={PAGE}", self.repository.path)).await?;
        let mut out = Vec::new();
        for _ in 0..PAGES {
            let make = |client: &reqwest::Client, url: Url| client.get(url);
            let response = match host.send(what, &self.repository, &scope, &url, limit, make).await? {
                Reply::Ok(response) => response,
                Reply::Refused(refusal) if refusal.status == 404 => return Ok(Vec::new()),
                Reply::Refused(refusal) => return Err(refusal.error(what, &self.repository).needs("ecr:ListImages")),
            };
            let next = header(response.headers(), LINK.as_str()).and_then(|link| next(&url, &link));
            let bytes = small_body(response, LARGEST, limit).await.map_err(|failure| failure.error(what, &self.repository))?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|_| Error::at(Kind::Damaged, what, &self.repository).because("the answer is not a list of tags"))?;
            out.extend(page.tags.into_iter().flatten());
            match next {
                // hakobi sends credentials to no other host.
                Some(next) if next.origin() == url.origin() => url = next,
                _ => break,
            }
        }
        Ok(out)
    }
}

/// Returns the URL of the next page: `</v2/app/tags/list?last=x&n=1000>; rel="next"`. Returns `None` if there is none.
fn next(url: &Url, link: &str) -> Option<Url> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = ["rel=\"next\"", "rel=next"].iter().any(|next| parameters.contains(next));
    is_next.then(|| url.join(target).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another() {
        let url: Url = "https://r.example.com/v2/app/tags/list?n=1000".parse().unwrap();
        let to = |link: &str| next(&url, link).map(|url| url.to_string());
        assert_eq!(
            to("</v2/app/tags/list?last=x&n=1000>; rel=\"next\"").as_deref(),
            Some("https://r.example.com/v2/app/tags/list?last=x&n=1000")
        );
        assert_eq!(to("</v2/app/tags/list>; rel=\"prev\""), None);
        assert_eq!(to("nonsense"), None);
    }
}
